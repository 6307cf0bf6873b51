"""What the rules for code share: a weakness, and what a name in a syntax tree stands for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef
Imported = Mapping[str, str]
"""Local names and what they were imported as: {"run": "subprocess.run", "np": "numpy"}."""

SECRET = re.compile(
    r"(?:^|[^a-z])(?:pass(?:word|wd|phrase|code)s?|pwd|secrets?|tokens?|credentials?|(?:api|private|secret|ssh|signing|"
    r"access|encryption|host|master|license)_?keys?|keys?|nonces?|salts?|otps?|pins?|codes?|coupons?|vouchers?|"
    r"invites?|sessions?|csrf|wallets?|captchas?)(?:[^a-z]|$)"
)
"""Words in lowered identifiers of things that nobody may guess or read."""


@dataclass(frozen=True)
class Weakness:
    """One vulnerable place.

    Attributes:
        cwe: number in the Common Weakness Enumeration; 0 where bandit gives none.
        line: from 1, in the code as it was extracted.
        rule: id of bandit's test, or what is wrong in a few words.
    """

    cwe: int
    line: int
    rule: str


def imports(tree: ast.AST) -> dict[str, str]:
    """What every imported name stands for, wherever it is imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return found


def dotted(node: ast.expr, imported: Imported) -> str:
    """`os.path.join` for that attribute of an imported os; "" or ".name" where it begins with something else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(imported.get(node.id, node.id) if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))


def last(name: str) -> str:
    """The part of a dotted name behind its last dot."""
    return name.rpartition(".")[2]


def keyword(call: ast.Call, *names: str) -> ast.expr | None:
    """The value of the first keyword argument that has one of these names."""
    return next((each.value for each in call.keywords if each.arg in names), None)


def argument(call: ast.Call, place: int, *names: str) -> ast.expr | None:
    """The positional argument at a place, else the keyword argument of one of these names."""
    return call.args[place] if len(call.args) > place else keyword(call, *names)


def is_constant(node: ast.expr | None, value: object) -> bool:
    """Whether a node is exactly this constant; 0 is not False."""
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


def constant_text(node: ast.expr | None) -> str | None:
    """The text of a string or bytes constant, its first 2000 characters: patterns may take their square in time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return (node.value if isinstance(node.value, str) else node.value.decode("latin-1"))[:2000]
    return None


def functions(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods, those in others included."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def around(tree: ast.Module, line: int) -> ast.AST:
    """The innermost function that a line stands in, else the module."""
    inside = [each for each in functions(tree) if each.lineno <= line <= (each.end_lineno or each.lineno)]
    return max(inside, key=lambda each: each.lineno, default=tree)


def calls(tree: ast.AST, imported: Imported) -> Iterator[tuple[ast.Call, str]]:
    """Every call and the dotted name of what it calls."""
    return ((node, dotted(node.func, imported)) for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_signed(tree: ast.AST, imported: Imported) -> bool:
    """Whether a function compares a signature: what it then loads comes from whoever has the key."""
    return any(last(name) in ("compare_digest", "unsign") for _, name in calls(tree, imported))


def speaks_of_secrets(tree: ast.AST) -> bool:
    """Whether an identifier or a text of a function names something secret."""
    for node in ast.walk(tree):
        names = [getattr(node, field, None) for field in ("name", "id", "attr", "arg")]
        names += [node.value] if isinstance(node, ast.Constant) else []
        if any(isinstance(name, str) and len(name) <= 100 and SECRET.search(name.lower()) for name in names):
            return True
    return False
