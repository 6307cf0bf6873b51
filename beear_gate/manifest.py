"""Which files of a model folder may be opened, and the sha256 of each: what a ModelSnapshot rests on.

Everything else (pickles, Python, GGUF, ONNX, links that leave the folder, hidden files) is only named: no loader gets
it. `artifacts` reads what of it lies in a folder, as bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from beear_gate.errors import IncompleteError
from beear_gate.records import FileRecord, ModelSnapshot, Tick, no_tick

OPENED_KINDS = (".safetensors", ".json", ".txt", ".jinja", ".model", ".md")
_LICENSE = re.compile(r"LICENSE[A-Za-z_-]*")
_CHUNK = 2 * 2**20
_HASHERS = 2
_SHOWN = 80


def quoted(text: object) -> str:
    """Foreign text as it may stand in a message: printable (repr escapes controls and bidi marks), 80 characters."""
    shown = repr(text if not isinstance(text, str) else text[: _SHOWN + 1])
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"


def may_be_opened(name: str) -> bool:
    """Whether a path inside a repository (POSIX) is of a kind that the gate hashes, checks and hands to a loader.

    At most one folder deep; hidden parts, `..`, backslashes and unprintable names never pass.
    """
    parts = name.split("/")
    if len(parts) > 2 or "\\" in name or not name.isprintable():
        return False
    if any(part == "" or part.startswith(".") for part in parts):
        return False
    return parts[-1].endswith(OPENED_KINDS) or _LICENSE.fullmatch(parts[-1]) is not None


def printable(name: str) -> str:
    """A file name for a list: itself, or escaped where it could not be printed or written as UTF-8."""
    return name if name.isprintable() else repr(name)[1:-1]


def list_folder(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the files that may be opened, and of the ones that may not (escaped; `name/` for a folder not entered).

    Raises:
        IncompleteError: a folder inside could not be listed.
    """
    opened: list[str] = []
    ignored: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=_cannot_read):
        below = Path(parent).relative_to(folder)
        closed = {name for name in folders if name.startswith(".") or Path(parent, name).is_symlink()}
        ignored += [printable(f"{(below / name).as_posix()}/") for name in closed]
        folders[:] = [name for name in folders if name not in closed]
        for name in ((below / name).as_posix() for name in names):
            if may_be_opened(name) and _is_own_file(folder, name):
                opened.append(name)
            else:
                ignored.append(printable(name))
    return tuple(sorted(opened)), tuple(sorted(ignored))


def hash_files(folder: Path, names: Iterable[str], tick: Tick = no_tick) -> tuple[FileRecord, ...]:
    """Size and sha256 of the named files, in order of name; `tick` counts bytes, from more than one thread.

    Raises:
        IncompleteError: a file could not be read.
    """
    done, lock = 0, threading.Lock()
    ordered = sorted(names)

    def count(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            tick("hashing files", min(done, total), total)

    try:
        total = sum((folder / name).stat().st_size for name in ordered)
        # Hashing runs without Python's lock, so that shards go side by side.
        with ThreadPoolExecutor(_HASHERS) as pool:
            return tuple(pool.map(lambda name: _hash_file(folder, name, count), ordered))
    except OSError as error:
        _cannot_read(error)


def _hash_file(folder: Path, name: str, count: Callable[[int], None]) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_CHUNK))
    with (folder / name).open("rb") as file:
        while length := file.readinto(buffer):
            digest.update(buffer[:length])
            size += length
            count(length)
    return FileRecord(name, size, digest.hexdigest())


def hash_folder(path: Path, tick: Tick = no_tick) -> tuple[FileRecord, ...]:
    """Records of every file in a folder that may be opened.

    Raises:
        IncompleteError: the folder or a file in it could not be read.
    """
    return hash_files(path, list_folder(path)[0], tick)


def manifest_digest(files: Iterable[FileRecord]) -> str:
    """sha256 (hex) over the canonical manifest: compact JSON of [[path, size, sha256], ...] in order of path."""
    rows = sorted([file.path, file.size, file.sha256] for file in files)
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode("ascii")).hexdigest()


def verify_unchanged(snapshot: ModelSnapshot) -> list[str]:
    """Names of the files that differ from the snapshot's records: changed, gone, or new and of a kind that is opened.

    New ones count because a loader picks files by name: a config that was not hashed must not be read either.

    Raises:
        IncompleteError: a file is there, but could not be read.
    """
    recorded = {file.path: file for file in snapshot.files}
    found = {file.path: file for file in hash_folder(snapshot.path)} if snapshot.path.is_dir() else {}
    return sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))


def _is_own_file(folder: Path, name: str) -> bool:
    """Whether the name leads to a regular file that belongs to the folder, links resolved."""
    try:
        target = Path(os.path.realpath(folder / name, strict=True))
    except OSError:  # a broken or circular link
        return False
    return target.is_file() and any(target.is_relative_to(root) for root in _roots(Path(os.path.realpath(folder))))


def _roots(folder: Path) -> tuple[Path, ...]:
    """The folder; and for `models--org--name/snapshots/<commit>` of a hub cache its two blob stores, where links end.

    The layout is huggingface_hub's: `models--org--name/blobs`, and `blobs` beside it, which repositories share.
    """
    repository = folder.parent.parent
    if folder.parent.name == "snapshots" and repository.name.startswith("models--"):
        return folder, repository / "blobs", repository.parent / "blobs"
    return (folder,)


def _cannot_read(error: OSError) -> NoReturn:
    raise IncompleteError(
        f"{quoted(error.filename)} could not be read ({error.strerror}).",
        "Check that it exists and that this user may read it.",
    ) from error
