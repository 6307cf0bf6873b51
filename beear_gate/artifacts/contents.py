"""What the checks look at: the snapshot's names, its parsed JSON files, its safetensors and GGUF headers, read once."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beear_gate.artifacts.gguf import GgufError, read_gguf
from beear_gate.artifacts.safetensors_header import HeaderError, Tensor, read_header
from beear_gate.artifacts.strict_json import parse_json
from beear_gate.records import FileRecord, ModelSnapshot

# Tens of megabytes of vocabulary: the tokenizers library reads them, they configure nothing that a check looks for.
VOCABULARIES = ("tokenizer.json", "vocab.json")

_MAX_JSON = 64 * 2**20  # bytes; the index of the largest public models has about 10 MB


@dataclass(frozen=True)
class Contents:
    """A snapshot as the checks see it.

    Attributes:
        require_chat_template: what the policy asks for.
        documents: parsed JSON by file name; unreadable: why another one could not be parsed.
        headers: tensors by safetensors file; broken: what is wrong with another one.
        starts: byte at which the data begin, by safetensors file.
        loose: files that lie in the folder and that no loader gets: they were not hashed, and may be read here.
        gguf: metadata by GGUF file; broken_gguf: what is wrong with another one.
    """

    snapshot: ModelSnapshot
    require_chat_template: bool
    documents: dict[str, Any]
    unreadable: dict[str, str]
    headers: dict[str, dict[str, Tensor]]
    broken: dict[str, str]
    starts: dict[str, int] = field(default_factory=dict)
    loose: tuple[str, ...] = ()
    gguf: dict[str, dict[str, object]] = field(default_factory=dict)
    broken_gguf: dict[str, str] = field(default_factory=dict)

    @property
    def opened(self) -> tuple[str, ...]:
        """Names of the hashed files."""
        return tuple(file.path for file in self.snapshot.files)

    @property
    def unread(self) -> tuple[str, ...]:
        """Names that the repository holds and that are not on this machine, or that may not be followed."""
        return tuple(sorted(set(self.snapshot.ignored) - set(self.loose)))

    def path(self, name: str) -> Path:
        return self.snapshot.path / name

    def verified(self, name: str, most: int) -> bytes:
        """The bytes of a hashed file.

        Raises:
            ValueError: it has more than `most` bytes, or is not what was hashed.
            OSError: it could not be read.
        """
        record = next(file for file in self.snapshot.files if file.path == name)
        if record.size > most:
            raise ValueError(f"it has {record.size} bytes, and at most {most} are read")
        data = self.path(name).read_bytes()
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise ValueError("it has changed since it was hashed")
        return data

    def text(self, name: str, most: int = 4 * 2**20) -> str:
        """The beginning of a file, at most `most` bytes, as text; what is no UTF-8 is replaced."""
        with self.path(name).open("rb") as file:
            return file.read(most).decode("utf-8", errors="replace")


def read_contents(snapshot: ModelSnapshot, require_chat_template: bool) -> Contents:
    """Read what the checks need, keeping what could not be read, and why, beside it."""
    contents = Contents(snapshot, require_chat_template, {}, {}, {}, {}, loose=_loose(snapshot))
    for file in snapshot.files:
        if file.path.endswith(".safetensors"):
            _read_tensors(contents, file)
        elif file.path.endswith(".json") and file.path not in VOCABULARIES:
            _read_document(contents, file)
    for name in contents.loose:
        if name.lower().endswith(".gguf"):
            _read_gguf(contents, name)
    return contents


def _loose(snapshot: ModelSnapshot) -> tuple[str, ...]:
    """Regular files of the folder that are not handed to a loader; links are not followed, and none are on a hub."""
    found = []
    for name in snapshot.ignored:
        try:
            inside = Path(os.path.realpath(snapshot.path / name)) == Path(os.path.realpath(snapshot.path)) / name
            if inside and (snapshot.path / name).is_file():
                found.append(name)
        except (OSError, ValueError):  # a name that this file system cannot have
            continue
    return tuple(found)


def _read_gguf(contents: Contents, name: str) -> None:
    try:
        contents.gguf[name] = read_gguf(contents.path(name))
    except OSError as error:
        contents.broken_gguf[name] = f"could not be read ({error.strerror})"
    except GgufError as error:
        contents.broken_gguf[name] = str(error)


def _read_document(contents: Contents, file: FileRecord) -> None:
    try:
        data = contents.verified(file.path, _MAX_JSON)
        # trainer_state.json may say NaN; a configuration that a model is built from may not.
        contents.documents[file.path] = parse_json(data, allow_nan=file.path != "config.json")
    except OSError as error:
        contents.unreadable[file.path] = f"it could not be read ({error.strerror})"
    except ValueError as error:
        contents.unreadable[file.path] = str(error)


def _read_tensors(contents: Contents, file: FileRecord) -> None:
    try:
        header = read_header(contents.path(file.path))
        contents.headers[file.path], contents.starts[file.path] = header.tensors, header.start
    except OSError as error:
        contents.broken[file.path] = f"could not be read ({error.strerror})"
    except HeaderError as error:
        contents.broken[file.path] = str(error)
