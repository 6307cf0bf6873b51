"""What the rules of `code_flow` know of a value: which attacks could still come through it, and its constant text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from beear_gate.evaluation.code_names import Imported, dotted

Kinds = frozenset[str]

PATH: Kinds = frozenset({"dots", "absolute"})
"""`..` could stand in it, or a whole path that begins at the root."""
TAINT: Kinds = PATH | {"unresolved", "shell", "sql", "html"}
"""Of a function's argument. "unresolved": `..` and links were not worked out, so that a prefix says nothing."""
REMOTE: Kinds = TAINT | {"remote"}
"""Of what a stranger sends, who has no business with paths of ours; an argument may be one."""
CLEAN: Kinds = frozenset()
INJECTION: Kinds = frozenset({"shell", "sql"})
"""What is believed of the result of a function that nobody knows."""

LONGEST = 4000
"""Characters of a text that are looked at: patterns for queries and pages take their square in time."""

TYPES_WITHOUT_TEXT = {"int", "float", "bool", "UUID", "date", "datetime", "Decimal", "timedelta", "complex"}
HANDLES = re.compile(r"self|cls|.*(?:conn|connection|cursor|session|engine|logger|client|sock|socket)|cur|db|c|app|log")
"""Parameters that are tools, and no text of anybody's."""


@dataclass(frozen=True)
class Value:
    """What an expression may hold.

    Attributes:
        kinds: attacks that could come through it; also "joined" for a path below a folder, "split" for a command line
            that was cut into words, "pathlib" for a Path.
        text: its constant parts, {} in place of the others.
        items: elements of a list that is written out.
    """

    kinds: Kinds = CLEAN
    text: str = ""
    items: tuple[Value, ...] | None = field(default=None, compare=False)

    @property
    def escapes(self) -> bool:
        """Whether it may name a file outside of the folder that it is meant for."""
        return bool(self.kinds & PATH) and bool(self.kinds & {"joined", "remote"})

    def without(self, kinds: Iterable[str]) -> Value:
        return replace(self, kinds=self.kinds - frozenset(kinds), items=None)


NOTHING = Value()


def union(values: Iterable[Value]) -> Kinds:
    """All that could come through any of them."""
    return CLEAN.union(*(value.kinds for value in values))


def concatenated(parts: Iterable[Value]) -> Value:
    """Text put together. What stands behind anything else can no longer be a whole path, but may climb out of one."""
    shown, kinds = "", CLEAN
    for part in parts:
        own = part.kinds
        if shown and own & PATH:
            own = own - {"absolute"} | {"joined"}
        kinds |= own
        shown += part.text or ("{}" if part.kinds or not shown else "")
    return Value(kinds - {"pathlib"}, shown[:LONGEST])


def joined(parts: list[Value]) -> Value:
    """A path of a folder and what is below it; of the folder's own origin nothing is said unless it was joined too."""
    folder, below = parts[0].kinds, union(parts[1:])
    if not folder & {"joined", "remote"}:
        folder -= PATH
    if below & PATH:
        below |= {"joined"}
    return Value(folder | below | {"unresolved", "pathlib"})


def of_parameter(node: ast.arg, remote: bool) -> Value:
    """What an argument may hold, by its annotation and its name."""
    written = list(ast.walk(node.annotation)) if node.annotation else []
    names = {getattr(each, "id", getattr(each, "attr", "")) for each in written}
    if node.arg == "request" or names & {"Request", "HttpRequest", "UploadFile"}:
        return Value(REMOTE)
    if (names & TYPES_WITHOUT_TEXT and not names & {"str", "Any"}) or HANDLES.fullmatch(node.arg):
        return NOTHING
    return Value(REMOTE if remote else TAINT)


REMOTE_SOURCES = ("sys.argv", "request", "flask.request", "bottle.request")


def is_remote(node: ast.expr, imported: Imported) -> bool:
    """Whether an expression begins at what a stranger or a user types."""
    name = dotted(node, imported)
    return name in REMOTE_SOURCES or name in ("self.rfile", "self.path", "self.headers")
