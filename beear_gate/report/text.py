"""Hostile text made harmless: everything that a model, a policy or a file name says passes through here."""

from __future__ import annotations

import re
import unicodedata

_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks that Unicode says to draw as nothing (Default_Ignorable_Code_Point): text can hide behind them.
# U+FE0E and U+FE0F are left out: ordinary emoji carry them.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0000-\U000e0fff]"
)
_MARKDOWN = re.compile(r"[\\`*_\[\]<>#|~!&@$]|:(?=//)|(?<=mailto):|(?<=xmpp):|(?<=www)\.", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@")
_LINE_START = re.compile(r"^(?:[-+=](?=\s|[-+=])|\d+(?=[.)](?:\s|$)))")


def visible(text: str, limit: int = 2000) -> str:
    r"""`text` with everything invisible spelt out (U+202E as \u202e, ESC as \x1b), cut after `limit` characters.

    Line breaks and tabs stay; nothing else in the result can move a cursor, reorder a line or hide.
    """
    shown = "".join(_shown(char) for char in text[:limit])
    rest = len(text) - limit
    return f"{shown} … ({rest} more characters)" if rest > 0 else shown


def _shown(char: str) -> str:
    if char in "\n\t":
        return char
    if unicodedata.category(char) not in _UNSEEN_CATEGORIES and not _UNSEEN.match(char):
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str, limit: int = 500) -> str:
    """`visible` text without line breaks, for places where a second line would mean something else."""
    return " ".join(visible(text, limit).split())


def cell(text: str, limit: int = 4000) -> str:
    """`visible` text for a table that somebody may open in a spreadsheet: never a formula (OWASP, CSV injection)."""
    shown = visible(text, limit)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


class Markdown(str):
    """Text that is Markdown already; the Markdown templates escape everything else that they print."""


def escaped(text: str, limit: int = 500) -> Markdown:
    """Plain text as one line of Markdown that shows it and does nothing: no link, image, HTML or table cell."""
    line = _MARKDOWN.sub(r"\\\g<0>", one_line(text, limit))
    # A digit cannot be escaped, the dot after it can.
    start = _LINE_START.match(line)
    if start is None:
        return Markdown(line)
    at = start.end() if line[0].isdigit() else 0
    return Markdown(f"{line[:at]}\\{line[at:]}")


def code(text: str, limit: int = 200) -> Markdown:
    """Plain text as a Markdown code span; the fence is longer than any run of backticks inside."""
    line = one_line(text, limit).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return Markdown(f"{fence}{pad}{line}{pad}{fence}") if line else Markdown("")
