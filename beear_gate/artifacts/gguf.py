"""Reading a GGUF file's metadata and tensor table (ggml docs/gguf.md), bounded, without the library.

No loader of this gate takes GGUF. But the file lies in the repository, and its chat template is a program for others.
"""

from __future__ import annotations

import struct
from io import BufferedReader
from pathlib import Path

from beear_gate.manifest import quoted

GGUF_REMEDY = "Convert the model again with llama.cpp's own tools, or drop the file."

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_TEXT = 1_000_000  # bytes of one text
_MOST = 1_000_000  # entries, array items in all, tensors: more than any vocabulary
_MAX_RANK = 4


class GgufError(ValueError):
    """What is wrong with the file, as the end of a sentence that begins with its name."""


class _Reader:
    def __init__(self, file: BufferedReader, size: int) -> None:
        self.file, self.size, self.items = file, size, 0

    def number(self, form: str) -> int:
        data = self.bytes(struct.calcsize(form))
        value: int = struct.unpack(form, data)[0]
        return value

    def bytes(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise GgufError("is cut short within its metadata")
        return self.file.read(count)

    def text(self) -> str:
        length = self.number("<Q")
        if length > _MAX_TEXT:
            raise GgufError(f"holds a text of {length} bytes; {_MAX_TEXT} is the most")
        return self.bytes(length).decode("utf-8", errors="replace")

    def value(self, kind: int, depth: int = 0) -> object:
        """One value; of an array only its length is kept."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth > 3:
            raise GgufError(f"has a value of the unknown type {kind}")
        inner, length = self.number("<I"), self.number("<Q")
        self.items += length
        if self.items > 4 * _MOST:
            raise GgufError(f"has arrays of {self.items} items; {4 * _MOST} is the most")
        if inner in _SCALARS:
            self.bytes(length * struct.calcsize(_SCALARS[inner]))
        else:
            for _ in range(length):
                self.value(inner, depth + 1)
        return length


def read_gguf(path: Path) -> dict[str, object]:
    """The metadata by key.

    Raises:
        GgufError: the file breaks the format.
        OSError: it could not be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _Reader(file, size)
        if size < 24 or reader.bytes(4) != b"GGUF":
            raise GgufError("does not begin like a GGUF file")
        version, tensors, entries = reader.number("<I"), reader.number("<Q"), reader.number("<Q")
        if version not in (2, 3):
            raise GgufError(f"has the unknown version {version}")
        if tensors > _MOST or entries > _MOST:
            raise GgufError(f"says that it has {entries} entries and {tensors} tensors")
        metadata: dict[str, object] = {}
        for _ in range(entries):
            key = reader.text()
            if key in metadata:
                raise GgufError(f"has the key {quoted(key)} twice")
            metadata[key] = reader.value(reader.number("<I"))
        _check_tensors(reader, tensors, metadata)
    return metadata


def _check_tensors(reader: _Reader, count: int, metadata: dict[str, object]) -> None:
    """Names once, few dimensions, aligned offsets within the file; sizes of quantised types are not known here."""
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment > 2**20:
        raise GgufError(f"has the impossible alignment {quoted(alignment)}")
    names: set[str] = set()
    farthest = 0
    for _ in range(count):
        name = reader.text()
        if name in names or not name.isprintable():
            raise GgufError(f"has the tensor name {quoted(name)} twice, or one that cannot be")
        names.add(name)
        rank = reader.number("<I")
        if rank > _MAX_RANK:
            raise GgufError(f"gives tensor {quoted(name)} {rank} dimensions")
        for _ in range(rank):
            reader.number("<Q")
        reader.number("<I")
        offset = reader.number("<Q")
        if offset % alignment:
            raise GgufError(f"places tensor {quoted(name)} at byte {offset}, which is not aligned")
        farthest = max(farthest, offset)
    start = -(-reader.file.tell() // alignment) * alignment
    if count and start + farthest >= reader.size:
        raise GgufError("places a tensor beyond its end")
