"""Checks of names: paths that leave the folder, links, names that mislead people or clash."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.rules import finding
from beear_gate.manifest import quoted
from beear_gate.records import Finding

# What Windows takes for a device, whatever the ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10))}
_KNOWN_ENDINGS = {".safetensors", ".json", ".txt", ".md", ".jinja", ".model", ".bin", ".gguf", ".png", ".jpg", ".pdf"}
_RUNNING = {
    ".exe",
    ".scr",
    ".com",
    ".bat",
    ".cmd",
    ".ps1",
    ".vbs",
    ".js",
    ".jar",
    ".msi",
    ".dll",
    ".so",
    ".dylib",
    ".lnk",
}


def check_names(contents: Contents) -> Iterator[Finding]:
    """No name leaves the folder, hides what it is, or becomes another one on another machine."""
    names = [*contents.opened, *contents.snapshot.ignored]
    for name in names:
        if problem := _problem(name):
            message = f"{quoted(name)} {problem}."
            yield finding("file-name", name, message, "Rename or drop the file, and ask who made such a name.")
    folded: dict[str, str] = {}
    for name in sorted(names):
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            message = f"{quoted(other)} and {quoted(name)} are one file on systems that ignore case."
            yield finding("file-clash", name, message, "Keep one of them.")


def _problem(name: str) -> str:
    """Why a name may not be, as the end of a sentence; "" where it may."""
    path = PurePosixPath(name)
    if name.startswith(("/", "~")) or ".." in path.parts or "\\" in name or ":" in name:
        # An unprintable name is escaped where it is listed, and so has a backslash as well.
        return "leads out of the folder, or has characters that hide what it is"
    if any(part.partition(".")[0].lower() in _DEVICES for part in path.parts):
        return "is a device on some systems"
    if any(part != part.strip() or (part.endswith(".") and part != ".") for part in path.parts):
        return "begins or ends in a way that some systems drop"
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    if len(endings) == 2 and endings[0] in _KNOWN_ENDINGS and endings[1] in _RUNNING:
        return f"looks like a {endings[0]} file and is run as {endings[1]}"
    return ""


def check_links(contents: Contents) -> Iterator[Finding]:
    """No link leaves the folder or leads nowhere, and everything is a plain file."""
    folder = contents.snapshot.path
    for name in contents.unread:
        path = folder / name.rstrip("/")
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):  # on a hub, what was not downloaded
            continue
        if stat.S_ISLNK(mode):
            message = f"{quoted(name)} is a link to {quoted(os.readlink(path))}, which is not followed."
        elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            message = f"{quoted(name)} is a device, a pipe or a socket."
        else:
            continue
        yield finding("file-link", name, message, "Put a plain file in its place, or drop it.")
