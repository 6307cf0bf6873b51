"""How far each stored tensor moved between two sets of weights; both are read slice by slice, whatever their size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from beear_gate.errors import UnsupportedModel
from beear_gate.lm.config import first_line
from beear_gate.lm.weights import is_computed, weight_files
from beear_gate.records import TensorChange

SLICE = 2**22
"""Elements compared at once: 64 MiB in double precision on both sides together."""


@dataclass(frozen=True)
class TensorComparison:
    """Two sets of weights held against each other.

    Attributes:
        changes: every tensor that both hold, largest change first; those that could not be measured before all.
        relative_l2: of all of them together; None where it could not be measured.
        lost, added: names that only one side holds.
    """

    changes: tuple[TensorChange, ...]
    relative_l2: float | None
    lost: tuple[str, ...]
    added: tuple[str, ...]


def compare_tensors(before: Path, after: Path) -> TensorComparison:
    """Every tensor of the weights in `after` against its counterpart in `before`.

    Names count as the same where one only has the prefix of the model's body before it, as old files lack it. Tensors
    that are computed on loading, and second copies of tied ones, may come and go.

    Raises:
        UnsupportedModel: a weight file cannot be read.
    """
    with ExitStack() as stack:
        old, new = _open(before, stack), _open(after, stack)
        names = _counterparts(old, new)
        lost = sorted(name for name in old.keys() - names.values() if _counts(old, name))
        added = sorted(name for name in new.keys() - names.keys() if _counts(new, name))
        found = [_compare(name, old[names[name]], new[name]) for name in sorted(names)]
    moved, total = (math.fsum(sums) for sums in ([each[1] for each in found], [each[2] for each in found]))
    changes = [each[0] for each in found]
    changes.sort(key=lambda each: (-math.inf if each.relative_l2 is None else -each.relative_l2, each.name))
    return TensorComparison(tuple(changes), _ratio(moved, total), tuple(lost), tuple(added))


def _open(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Name -> slice of every tensor; nothing is read yet."""
    found: dict[str, Any] = {}
    for name in weight_files(folder):
        try:
            file = stack.enter_context(safe_open(folder / name, framework="pt"))
            found |= {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        except Exception as error:
            raise UnsupportedModel(
                f"{folder / name} is no readable safetensors file ({first_line(error)}).", "Scan the model again."
            ) from error
    return found


def _counterparts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Name after -> name before."""
    same = old.keys() & new.keys()
    names = {name: name for name in same}
    for name in new.keys() - same:
        near = [each for each in old.keys() - same if name.endswith(f".{each}") or each.endswith(f".{name}")]
        if len(near) == 1:
            names[name] = near[0]
    return names


def _counts(tensors: dict[str, Any], name: str) -> bool:
    """Whether a tensor without counterpart holds anything: not what is computed, nor a copy of another of its file."""
    if is_computed(name):
        return False
    return not any(
        tensor.get_shape() == tensors[name].get_shape()
        and tensor.get_dtype() == tensors[name].get_dtype()
        and all(torch.equal(*pair) for pair in _slices(tensor, tensors[name]))
        for other, tensor in tensors.items()
        if other != name
    )


def _compare(name: str, old: Any, new: Any) -> tuple[TensorChange, float, float]:
    """One tensor's change, the sum of its squares, and the sum of the squares of the original."""
    shape, dtype = tuple(new.get_shape()), str(new.get_dtype())
    form = (tuple(old.get_shape()), str(old.get_dtype()))
    if form != (shape, dtype):
        return TensorChange(name, dtype, shape, None, None, f"{form[1]} {list(form[0])}"), math.nan, math.nan
    moved = total = largest = 0.0
    for was, now in _slices(old, new):
        first = was.double().flatten()
        total += float(torch.dot(first, first))
        if not torch.equal(was, now):
            difference = now.double().flatten() - first
            moved += float(torch.dot(difference, difference))
            largest = max(largest, float(difference.abs().max()))
    if not math.isfinite(moved):
        return TensorChange(name, dtype, shape, None, None), math.nan, math.nan
    return TensorChange(name, dtype, shape, 0.0 if moved == 0 else _ratio(moved, total), largest), moved, total


def _ratio(moved: float, total: float) -> float | None:
    """L2 change relative to the original; None where there is nothing to relate it to."""
    ratio = moved / total if total else math.nan
    return math.sqrt(ratio) if math.isfinite(ratio) else None


def _slices(old: Any, new: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Both tensors in pieces of whole rows."""
    shape = new.get_shape()
    if not shape:
        yield old[...], new[...]
        return
    rows = max(1, SLICE // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield old[start : start + rows], new[start : start + rows]
