"""Several processes that share out one model: how many there are, who does what, and what they tell one another.

All of them run the same program with the same seeds, so every draw and every decision is the same everywhere and none
is sent around. Only passes over the model are shared out. Weights are gathered layer by layer in each pass
(`lm.sharded`), which every process has to take part in: whoever shares out work must see to it that all processes make
equally many passes. In a process that is alone, all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

from beear_gate.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, one of which may be writing a large model."""


def join(rank: int, number: int, device: torch.device, meeting: Path) -> None:
    """Become process `rank` of `number`, which meet in a file of this machine that does not exist before."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # What is no tensor goes over the CPU in either case.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = distributed.FileStore(str(meeting), number)  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=store, rank=rank, world_size=number, timeout=PATIENCE)


def leave() -> None:
    distributed.destroy_process_group()


def device_of(name: str, rank: int, number: int) -> str:
    """The device of one of several processes: a CPU is shared, of GPUs each has its own.

    Raises:
        UsageError: there are not that many, or the device cannot be shared out.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise UsageError(f"{number} processes cannot share --device {name}.", "Give --device cuda or cpu.")
    there = torch.cuda.device_count()
    if there < number:
        raise UsageError(
            f"--processes asks for {number} GPUs, and {there} can be used here.",
            "Give no more processes than GPUs, or --device cpu.",
        )
    return f"cuda:{rank}"


def count() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if count() > 1 else 0


def own(items: Sequence[T]) -> Sequence[T]:
    """This process's part; empty where there are fewer items than processes."""
    return items[rank() :: count()] if count() > 1 else items


def share_out(items: Sequence[T], work: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """What `work` says of each item, done by all processes together; `work` makes as many passes for any items."""
    if count() == 1:
        return work(items)
    mine = own(items)
    done = work(mine or items[:1])[: len(mine)]  # a pass with nothing of one's own is a pass all the same
    parts = gathered(done)
    return [parts[place % count()][place // count()] for place in range(len(items))]


def gathered(value: T) -> list[T]:
    """What each process says, by rank."""
    if count() == 1:
        return [value]
    said: list[Any] = [None] * count()
    distributed.all_gather_object(said, value)
    return said


def agreed(value: T) -> T:
    """What the first process says: rounding may differ between devices, decisions may not."""
    if count() == 1:
        return value
    said: list[Any] = [value if rank() == 0 else None]
    distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    return cast(T, said[0])


def once(work: Callable[[], T]) -> T:
    """What the first process works out for all; the others wait."""
    return agreed(work() if rank() == 0 else cast(T, None))


def summed(values: Tensor) -> Tensor:
    """The sum over all processes; the same in each of them."""
    if count() > 1:
        distributed.all_reduce(values)
    return values
