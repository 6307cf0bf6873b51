"""Running out of memory: how to recognise it on every device, and what to do about it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from beear_gate.errors import OutOfMemory

T = TypeVar("T")
R = TypeVar("R")

# A CPU, MPS and some CUDA libraries say it in a plain RuntimeError.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")

REMEDY = "Use a device with more memory, --dtype bfloat16, or shorter answers (generation.max_new_tokens)."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that host or device memory ran out, so that a smaller batch may do."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


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
    # The frames that failed still hold their tensors, and no cache can give back what is in use.
    traceback.clear_frames(error.__traceback__)
    release()
    return batch_size // 2


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
            if not is_out_of_memory(error):
                raise
            size = halve(len(part), doing, error)
            continue
        start += len(part)
    return found


def release() -> None:
    """Hand cached device memory back, so that the next attempt does not meet a fragmented pool."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
