"""What the checks look at: the snapshot's names, its parsed JSON files and its safetensors headers, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

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
    """

    snapshot: ModelSnapshot
    require_chat_template: bool
    documents: dict[str, Any]
    unreadable: dict[str, str]
    headers: dict[str, dict[str, Tensor]]
    broken: dict[str, str]

    @property
    def opened(self) -> tuple[str, ...]:
        """Names of the hashed files."""
        return tuple(file.path for file in self.snapshot.files)


def read_contents(snapshot: ModelSnapshot, require_chat_template: bool) -> Contents:
    """Read what the checks need, keeping what could not be read, and why, beside it."""
    contents = Contents(snapshot, require_chat_template, {}, {}, {}, {})
    for file in snapshot.files:
        if file.path.endswith(".safetensors"):
            _read_tensors(contents, file)
        elif file.path.endswith(".json") and file.path not in VOCABULARIES:
            _read_document(contents, file)
    return contents


def _read_document(contents: Contents, file: FileRecord) -> None:
    if file.size > _MAX_JSON:
        contents.unreadable[file.path] = f"it has {file.size} bytes, and at most {_MAX_JSON} are read"
        return
    try:
        data = (contents.snapshot.path / file.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise ValueError("it has changed since it was hashed")
        # trainer_state.json may say NaN; a configuration that a model is built from may not.
        contents.documents[file.path] = parse_json(data, allow_nan=file.path != "config.json")
    except OSError as error:
        contents.unreadable[file.path] = f"it could not be read ({error.strerror})"
    except ValueError as error:
        contents.unreadable[file.path] = str(error)


def _read_tensors(contents: Contents, file: FileRecord) -> None:
    try:
        contents.headers[file.path] = read_header(contents.snapshot.path / file.path)
    except OSError as error:
        contents.broken[file.path] = f"could not be read ({error.strerror})"
    except HeaderError as error:
        contents.broken[file.path] = str(error)
