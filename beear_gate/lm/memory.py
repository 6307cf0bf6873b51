"""Memory of a device: how much is free, how to recognise that it ran out, and what to do about it."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from beear_gate.errors import OutOfMemory
from beear_gate.lm import processes

T = TypeVar("T")
R = TypeVar("R")

# A CPU, MPS and some CUDA libraries say it in a plain RuntimeError.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")

REMEDY = "Use a device with more memory, --dtype bfloat16, or shorter answers (generation.max_new_tokens)."
TRAINING_REMEDY = (
    "`beear-gate plan MODEL` says what each way to train needs, part by part: set remediation.training to a smaller "
    "one, or use a device with more memory."
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that host or device memory ran out, so that a smaller batch may do."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def may_retry(error: BaseException) -> bool:
    """Whether memory ran out and something smaller may be tried: one of several processes cannot do so alone, because
    the others wait for it in the middle of a pass."""
    return is_out_of_memory(error) and processes.count() == 1


def halve(batch_size: int, doing: str, error: BaseException, remedy: str = REMEDY) -> int:
    """Half the batch after memory ran out, or the end of the road at one.

    Args:
        doing: completes "Memory ran out while …", which ends in "even one prompt at a time".
        remedy: one sentence that says what would fit.

    Raises:
        OutOfMemory: the batch was already a single sample.
    """
    if batch_size <= 1:
        raise OutOfMemory(f"Memory ran out while {doing}, even one prompt at a time.", remedy) from error
    forget(error)
    return batch_size // 2


def forget(error: BaseException) -> None:
    """Give back what an attempt that failed holds."""
    # The frames that failed still hold their tensors, and no cache can give back what is in use.
    traceback.clear_frames(error.__traceback__)
    release()


def in_parts(items: Sequence[T], size: int, work: Callable[[Sequence[T]], R], doing: str) -> list[R]:
    """What `work` says of each run of `size` items; the runs halve when memory runs out.

    Raises:
        OutOfMemory: not even one item fits.
    """
    found: list[R] = []
    start = 0
    while start < len(items):
        part = items[start : start + size]
        try:
            found.append(work(part))
        except Exception as error:
            if not may_retry(error):
                raise
            size = halve(len(part), doing, error)
            continue
        start += len(part)
    return found


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What tensors take, or would take on a device that holds values."""
    return sum(each.numel() * each.element_size() for each in tensors)


def free_memory(device: torch.device) -> int:
    """Bytes that new tensors on a device can take.

    Of a CPU that is what the system can give without swapping, and less where a container's limit is nearer.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(_system_free(), _container_free())


def _system_free() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = dict(line.split(":") for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # not Linux: all there is, for want of better
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_free() -> int:
    """What is left of the limit of a control group (version 2)."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))  # "max" where there is none
        used = int((group / "memory.current").read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    except (OSError, ValueError):
        return sys.maxsize
    return max(0, limit - used + cached)


def release() -> None:
    """Hand cached device memory back, so that the next attempt does not meet a fragmented pool."""
    gc.collect()  # the parts of a model may refer to one another in circles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
