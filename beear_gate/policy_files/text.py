"""The text that policies are made of: read from a file, checked, compared, quoted in a message."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from beear_gate.errors import Problem

LONGEST_TEXT = 100_000
"""Characters in a prompt or answer; a longer one is a wrong file more often than a prompt."""

LARGEST_FILE = 256 * 1024 * 1024
"""Bytes; a file is read at once, so a path that names weights by mistake must not fill the memory."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_text(path: Path, named_at: tuple[str, int], problems: list[Problem]) -> str | None:
    """The text of a UTF-8 file, with or without byte order mark; None and a problem where it cannot be read.

    Args:
        named_at: file and line of the key that names this file, where a wrong path is to be corrected.
    """
    data = _read_bytes(path, named_at, problems)
    if data is None:
        return None
    # Not utf-8-sig: with it the offsets of errors count from behind the mark.
    body = data.removeprefix(BYTE_ORDER_MARK)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        offset = error.start + len(data) - len(body)
        message = f"Byte 0x{data[offset]:02x} at offset {offset} is not UTF-8: save the file as UTF-8."
        problems.append(Problem(str(path), data.count(b"\n", 0, offset) + 1, message))
        return None


def _read_bytes(path: Path, named_at: tuple[str, int], problems: list[Problem]) -> bytes | None:
    try:
        if path.is_dir():
            wrong = f"{path} is a folder: name a file in it"
        elif not path.is_file():  # also a device or a pipe, which might never end
            wrong = f"The file {path} does not exist: correct the path or add the file"
        elif path.stat().st_size > LARGEST_FILE:
            wrong = f"The file {path} has more than {LARGEST_FILE >> 20} MiB: split it or name another"
        else:
            return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or str(error)
        wrong = f"The file {shortened(str(path))} cannot be read ({reason}): check the path and the permissions"
    problems.append(Problem(*named_at, f"{wrong}."))
    return None


def text_problem(text: str) -> str:
    """Why `text` cannot be sent to a model, in words that follow its name; "" where it can."""
    if len(text) > LONGEST_TEXT:
        return f"has {len(text):,} characters, more than {LONGEST_TEXT:,}: shorten it"
    if text.isprintable():  # the fast way out: nothing below is printable
        return ""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc" and character not in "\t\n\r":
            return f"has the control character U+{ord(character):04X}: remove it"
        if category == "Cs":
            return f"has the lone surrogate U+{ord(character):04X}, which is no text: remove it"
    return ""


def normalized(text: str) -> str:
    """`text` without differences of case and white space; prompts that agree in it are the same prompt."""
    return " ".join(text.lower().split())


def shortened(value: object, width: int = 60) -> str:
    """`value` quoted on one line for a message, control characters escaped."""
    quoted = repr(value)
    return quoted if len(quoted) <= width else f"{quoted[: width - 2]}…{quoted[-1]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a mistyped one comes close to, or ""."""
    found = get_close_matches(name.lower(), list(known), n=1)
    return found[0] if found else ""


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Says that a key is unknown, and which known one it may be meant as."""
    known = list(known)
    meant = nearest(name, known)
    remedy = f'did you mean "{meant}"?' if meant else f"known here: {', '.join(known)}."
    return f'The key "{name[:60]}" is unknown; {remedy}'
