"""Reading the header of a safetensors file, more strictly than the library, and without it.

Format (huggingface/safetensors README, "Format"): 8 bytes little-endian length N, N bytes of JSON that start with `{`
and may end in spaces, then the data. Each tensor has a dtype, a shape and [begin, end) within the data; together they
cover it exactly, without holes or overlaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from beear_gate.artifacts.strict_json import parse_json
from beear_gate.manifest import quoted

MAX_HEADER = 25_000_000
"""Bytes; a quarter of the library's limit. A hundred thousand tensors need about half of it."""

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element, for every dtype that safetensors 0.8 knows."""

_MAX_NAME = 500  # characters
_MAX_RANK = 64  # numpy's limit; keeps a hostile shape from costing minutes of big-integer products


class HeaderError(ValueError):
    """What is wrong with the file, as the end of a sentence that begins with its name."""


class Tensor(NamedTuple):
    """One tensor's entry: its dtype, shape, and where its bytes lie within the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """The tensors of a file by name, and the byte at which their data begin."""

    tensors: dict[str, Tensor]
    start: int


def read_header(path: Path) -> Header:
    """The header of a safetensors file, its whole layout checked against its length; no tensor data is read.

    Raises:
        HeaderError: the file breaks the format.
        OSError: it could not be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise HeaderError(f"is only {size} bytes long, shorter than the length of its header")
        length = int.from_bytes(start, "little")
        if length > MAX_HEADER:
            raise HeaderError(f"says that its header has {length} bytes; {MAX_HEADER} is the most")
        if length > size - 8:
            raise HeaderError(f"says that its header has {length} bytes, but only {size - 8} follow")
        raw = file.read(length)
    if not raw.startswith(b"{"):
        raise HeaderError("has a header that does not start with '{'")
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise HeaderError(f"has a header that is not plain JSON: {error}") from error
    if not isinstance(header, dict):
        raise HeaderError("has a header that is no JSON object")
    _check_metadata(header.pop("__metadata__", {}))
    tensors = {name: _tensor(name, entry) for name, entry in header.items()}
    _check_layout(tensors, size - 8 - length)
    return Header(tensors, 8 + length)


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("has a __metadata__ that does not map text to text")


def _tensor(name: str, entry: object) -> Tensor:
    """One entry of the header, checked on its own."""
    if not name or len(name) > _MAX_NAME or not name.isprintable() or ".." in name.split("/") or "\\" in name:
        raise HeaderError(f"has a tensor with the impossible name {quoted(name)}")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"has no dtype, shape and data_offsets (and nothing else) for tensor {quoted(name)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise HeaderError(f"gives tensor {quoted(name)} the unknown dtype {quoted(dtype)}")
    if not _are_counts(shape) or len(shape) > _MAX_RANK:
        raise HeaderError(f"gives tensor {quoted(name)} the impossible shape {quoted(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError(f"gives tensor {quoted(name)} the impossible offsets {quoted(offsets)}")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != (offsets[1] - offsets[0]) * 8:
        raise HeaderError(
            f"gives tensor {quoted(name)} {offsets[1] - offsets[0]} bytes, but {dtype} of shape {quoted(shape)} "
            f"needs {bits / 8:g}"
        )
    return Tensor(dtype, tuple(shape), offsets[0], offsets[1])


def _are_counts(values: object) -> bool:
    # bool is an int in Python, but `true` is no size.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_layout(tensors: dict[str, Tensor], length: int) -> None:
    """Raise unless the tensors follow one another from 0 to the very end of the data."""
    position = 0
    for name, tensor in _by_position(tensors.items()):
        if tensor.begin != position:
            what = "overlaps the tensor before it" if tensor.begin < position else "leaves a hole before it"
            raise HeaderError(f"places tensor {quoted(name)} at byte {tensor.begin}, which {what}")
        position = tensor.end
    if position > length:
        raise HeaderError(f"is cut short: its tensors need {position} bytes and {length} are there")
    if position < length:
        raise HeaderError(f"holds {length - position} bytes after its last tensor that belong to none")


def _by_position(items: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    return sorted(items, key=lambda item: (item[1].begin, item[1].end))
