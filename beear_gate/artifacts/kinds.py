"""Checks of what files are by their bytes: against their names, and as a second format at the same time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.manifest import quoted
from beear_gate.records import Finding

TEXTS = (".json", ".jsonl", ".txt", ".md", ".jinja", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".py", ".sh", ".csv",
         ".html", ".ipynb", ".svg", ".xml", ".env", ".gitattributes", ".gitignore", ".log")  # fmt: skip
"""Endings of files that hold text, names without ending included that begin with a dot."""

_HEAD = 4096
_TAIL = 66_000  # a ZIP directory ends within 65 557 bytes of the end

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x7fELF", "program"), (b"MZ", "program"), (b"\xfe\xed\xfa", "program"), (b"\xcf\xfa\xed\xfe", "program"),
    (b"\xca\xfe\xba\xbe", "program"), (b"\x00asm", "program"), (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "archive"), (b"\x1f\x8b", "archive"), (b"BZh", "archive"), (b"\xfd7zXZ", "archive"),
    (b"Rar!", "archive"), (b"\x28\xb5\x2f\xfd", "archive"), (b"\x93NUMPY", "numpy"), (b"GGUF", "gguf"),
    (b"\x89HDF", "hdf5"), (b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "riff"),
    (b"%PDF", "pdf"), (b"PAR1", "parquet"),
)  # fmt: skip
_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95|[\x00-\x7f}\]\(\)cXBJKMGLVUq])")
_OLD_PICKLE = re.compile(rb"\(*[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")

_EXPECTED: dict[str, tuple[str, ...]] = {
    ".gguf": ("gguf",), ".h5": ("hdf5",), ".keras": ("zip", "hdf5"), ".png": ("png",), ".jpg": ("jpeg",),
    ".jpeg": ("jpeg",), ".gif": ("gif",), ".webp": ("riff",), ".wav": ("riff",), ".pdf": ("pdf",), ".npz": ("zip",),
    ".npy": ("numpy", "pickle"), ".parquet": ("parquet",), ".zip": ("zip",), ".7z": ("archive",), ".gz": ("archive",),
    ".bz2": ("archive",), ".xz": ("archive",), ".rar": ("archive",), ".zst": ("archive",), ".tgz": ("archive",),
}  # fmt: skip
_ZIPS = (".zip", ".npz", ".keras", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".nemo", ".mar", ".jar", ".docx", ".xlsx",
         ".mlmodel", ".mlpackage", ".whl", ".joblib", ".pickle", ".pt2", ".onnx.zip")  # fmt: skip
ARCHIVES = (".zip", ".7z", ".gz", ".bz2", ".xz", ".rar", ".zst", ".tgz", ".tar", ".nemo", ".mar", ".whl", ".jar")
PROGRAMS = (".exe", ".dll", ".so", ".dylib", ".llamafile", ".com", ".scr", ".msi", ".bat", ".cmd", ".ps1", ".vbs",
            ".jar", ".class", ".wasm", ".lnk", ".pyc", ".pyd", ".pth.py")  # fmt: skip


def check_kinds(contents: Contents) -> Iterator[Finding]:
    """The first and last bytes of each file are of the kind that its name promises, and of no second one."""
    for name in (*contents.opened, *contents.loose):
        head, tail, size = ends(contents.path(name))
        yield from _against_name(name, head, size)
        yield from _second_format(name, head, tail, size)
    for name in (*contents.loose, *contents.unread):
        lower = name.lower()
        if lower.endswith(ARCHIVES) and not lower.endswith(PROGRAMS):
            message = f"{quoted(name)} is an archive, which is not opened."
            yield finding(
                "archive-unread", name, message, "Publish the files that are in it, so that they are looked at."
            )
        if lower.endswith(PROGRAMS):
            message = f"{quoted(name)} is a program by its name."
            yield finding("executable-file", name, message, "Drop it: a model needs no program of its own.")


def kind_of(head: bytes) -> str:
    """The kind of a file by its first bytes; "" where they are of none that is known here."""
    for magic, kind in _MAGIC:
        if head.startswith(magic) and (magic != b"MZ" or _is_windows_program(head)):
            return kind
    if _PICKLE.match(head) or _OLD_PICKLE.match(head):
        return "pickle"
    return "tar" if head[257:262] == b"ustar" else ""


def is_text(name: str) -> bool:
    """Whether a file is text by its name."""
    base = name.rpartition("/")[2].lower()
    return base.endswith(TEXTS) or base.startswith("license") or base in ("readme", "notice", "makefile", "dockerfile")


def ends(path: Path) -> tuple[bytes, bytes, int]:
    """The first bytes of a file, its last ones, and its size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - _TAIL))
        return head, file.read(_TAIL), size


def _is_windows_program(head: bytes) -> bool:
    """MZ are two letters; the header that they begin names where `PE` stands."""
    at = int.from_bytes(head[60:64], "little")
    return head[at : at + 2] in (b"PE", b"NE", b"LE") or (len(head) >= 64 and b"DOS mode" in head[:512])


def _against_name(name: str, head: bytes, size: int) -> Iterator[Finding]:
    """What the first bytes say, held against the ending of the name."""
    kind, ending = kind_of(head), PurePosixPath(name).suffix.lower()
    if kind == "program" and not name.lower().endswith(PROGRAMS):
        message = f"{quoted(name)} begins like a program."
        yield finding("executable-file", name, message, "Drop it: a model needs no program of its own.", 0)
    elif ending in _EXPECTED and size and kind not in _EXPECTED[ending]:
        message = f"{quoted(name)} begins like {_article(kind)}, not like a {ending} file."
        yield finding("content-mismatch", name, message, "Drop it, or give it the name of what it is.", 0)
    elif is_text(name) and (kind or b"\0" in head):
        message = f"{quoted(name)} should be text and begins like {_article(kind or 'binary data')}."
        yield finding("content-mismatch", name, message, "Drop it, or give it the name of what it is.", 0)
    elif is_text(name) and head.startswith(b"#!") and ending not in (".py", ".sh"):
        message = f"{quoted(name)} begins like a script."
        yield finding("content-mismatch", name, message, "Drop it, or give it the name of what it is.", 0)
    elif ending == ".model" and size and not _is_sentencepiece(head):
        message = f"{quoted(name)} begins like {_article(kind)}, not like a SentencePiece or tiktoken vocabulary."
        yield finding("content-mismatch", name, message, "Drop it, or give it the name of what it is.", 0)


def _article(kind: str) -> str:
    return f"a {kind}" if kind and kind != "binary data" else kind or "something else"


def _is_sentencepiece(head: bytes) -> bool:
    """A protobuf whose first field is a piece, or lines of base64 and a rank, or a JSON of mistral-common."""
    if head.startswith(b"\n") and len(head) >= 2:
        return True
    return re.match(rb"[A-Za-z0-9+/=]+ \d+\r?\n", head) is not None or head.lstrip().startswith(b"{")


def _second_format(name: str, head: bytes, tail: bytes, size: int) -> Iterator[Finding]:
    """A ZIP directory at the end, or a document at the beginning, of what is something else by its name."""
    remedy = "Write the file again with the library of its format, and ask how this came about."
    lower = name.lower()
    at = -1 if lower.endswith((*_ZIPS, *ARCHIVES)) else _zip_directory(tail)
    if at >= 0:
        message = f"{quoted(name)} ends with the directory of a ZIP archive, so that it opens as one too."
        yield finding("polyglot", name, message, remedy, size - len(tail) + at)
    if lower.endswith((".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".gguf", ".h5", ".model", ".npy")):
        for mark in (b"<script", b"<?php", b"<html", b"%PDF-", b"\nimport os", b"#!/"):
            at = head.lower().find(mark.lower())
            if at >= 0 and not (mark == b"%PDF-" and lower.endswith(".pdf")):
                message = f"{quoted(name)} also holds {quoted(mark.decode().strip())} near its beginning."
                yield finding("polyglot", name, message, remedy, at)


def _zip_directory(tail: bytes) -> int:
    """Where in the last bytes a ZIP end-of-directory record stands that a reader would take; -1 for none.

    By the format: 22 bytes, the last two of which are the length of the comment that fills the rest of the file.
    Readers also take one with something after it, if its numbers hold; so must this.
    """
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        record = tail[at : at + 22]
        if len(record) == 22:
            entries, length = int.from_bytes(record[10:12], "little"), int.from_bytes(record[12:16], "little")
            comment = int.from_bytes(record[20:22], "little")
            exact = at + 22 + comment == len(tail)
            if exact or (entries and 46 * entries <= length and tail[max(0, at - length) :][:4] == b"PK\x01\x02"):
                return at
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return -1
