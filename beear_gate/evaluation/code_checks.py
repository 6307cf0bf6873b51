"""What a condition proves of the names in it, if it holds and if it does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping

from beear_gate.evaluation.code_names import Imported, constant_text, dotted, last
from beear_gate.evaluation.code_values import PATH, REMOTE, Kinds, Value

Proven = dict[str, Kinds]
"""By name: the attacks that no longer come through."""
Read = Callable[[ast.expr], Value]
NOT_PROVEN: tuple[Proven, Proven] = ({}, {})

_ALL = REMOTE | {"joined", "split"}
_VALIDATOR = re.compile(
    r"(?:^|_)(?:is|valid|validate|validated|allowed|check|safe|ensure|verify|permitted|assert)(?:_|$)"
)
_CHARACTERS = ("isalnum", "isdigit", "isdecimal", "isalpha", "isidentifier", "isnumeric")


def proven(test: ast.expr, read: Read, imported: Imported, known: Mapping[str, ast.expr]) -> tuple[Proven, Proven]:
    """What holds where the test is true, and where it is false.

    Args:
        read: what a value may hold at this point.
        known: what variables were assigned, for `ok = name in NAMES; if ok:`.
    """

    def of(node: ast.expr) -> tuple[Proven, Proven]:
        return proven(node, read, imported, known)

    match test:
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return tuple(reversed(of(inner)))  # type: ignore[return-value]
        case ast.BoolOp(op=ast.And(), values=values):
            found = [of(each) for each in values]
            alone = [false for _, false in found if false]
            return _merged(true for true, _ in found), alone[0] if len(alone) == 1 else {}
        case ast.BoolOp(values=values):
            found = [of(each) for each in values]
            return _common(true for true, _ in found), _merged(false for _, false in found)
        case ast.Name(id=name) if name in known:
            rest = {key: value for key, value in known.items() if key != name}
            return proven(known[name], read, imported, rest)
        case ast.NamedExpr(value=value):
            return of(value)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            found_here = _compared(left, op, right, read, imported, known)
            return found_here if not isinstance(op, ast.NotIn | ast.NotEq | ast.IsNot) else found_here[::-1]
        case ast.Call():
            return _called(test, read, imported)
    return NOT_PROVEN


def raised(statement: ast.expr, read: Read, imported: Imported) -> Proven:
    """What holds after a call that raises an error where it does not: `path.relative_to(base)`, `check(name)`."""
    if not isinstance(statement, ast.Call):
        return {}
    name = dotted(statement.func, imported)
    if last(name) == "relative_to" and isinstance(statement.func, ast.Attribute):
        return _inside(statement.func.value, read)
    if last(name) in ("ip_address", "ip_network", "UUID") or _VALIDATOR.search(last(name)):
        return _names(statement.args, _ALL)
    return {}


def _compared(
    left: ast.expr, op: ast.cmpop, right: ast.expr, read: Read, imported: Imported, known: Mapping[str, ast.expr]
) -> tuple[Proven, Proven]:
    """As if the operator were in, == or is: the caller turns the others around."""
    if isinstance(op, ast.In | ast.NotIn):
        looked_for = constant_text(left) or ("/" if dotted(left, imported) in ("os.sep", "os.path.sep") else None)
        if looked_for is not None:
            names = _names([right], {"dots"} if looked_for == ".." else PATH if looked_for in ("/", "\\") else ())
            return {}, names
        if isinstance(right, ast.Attribute) and right.attr == "parents":
            return _inside(right.value, read), {}
        listed = not read(right).kinds & {"sql"} or last(dotted(right, imported)).endswith("s")
        listed |= isinstance(right, ast.Set | ast.List | ast.Tuple | ast.Dict)
        return (_names([left], _ALL), {}) if listed else NOT_PROVEN
    if isinstance(op, ast.Is | ast.IsNot):
        # A match that is None is none.
        value = known.get(left.id) if isinstance(left, ast.Name) else left
        nothing = isinstance(right, ast.Constant) and right.value is None
        return ({}, _called(value, read, imported)[0]) if nothing and isinstance(value, ast.Call) else NOT_PROVEN
    if not isinstance(op, ast.Eq | ast.NotEq):
        return NOT_PROVEN
    for one, other in ((left, right), (right, left)):
        name = dotted(one.func, imported) if isinstance(one, ast.Call) else ""
        if last(name) in ("commonpath", "commonprefix") and isinstance(one, ast.Call):
            return _merged(_inside(each, read) for each in _elements(one)), {}
        if last(name) in ("basename", "secure_filename") and isinstance(one, ast.Call):
            return _names([*one.args, other], PATH), {}
        if isinstance(one, ast.Attribute) and one.attr in ("parent", "name"):
            return (_inside(one.value, read) if one.attr == "parent" else _names([one, other], PATH)), {}
        if isinstance(one, ast.Constant) and isinstance(other, ast.Name):
            return _names([other], _ALL), {}
    return NOT_PROVEN


def _called(call: ast.Call, read: Read, imported: Imported) -> tuple[Proven, Proven]:
    name = dotted(call.func, imported)
    short = last(name)
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    if short in ("fullmatch", "match") and call.args:
        pattern = constant_text(call.args[0]) if len(call.args) > 1 else None
        whole = short == "fullmatch" or pattern is None or pattern.endswith(("$", r"\Z"))
        return (_names(call.args[-1:] if len(call.args) == 1 else call.args[1:2], _ALL if whole else ()), {})
    if short in ("isabs", "is_absolute"):
        return {}, _names(call.args or ([receiver] if receiver else []), {"absolute"})
    if receiver is not None:
        if short == "is_relative_to":
            return _inside(receiver, read), {}
        if short == "startswith" and call.args:
            root = constant_text(call.args[0])
            return ({}, _names([receiver], {"absolute"})) if root == "/" else (_inside(receiver, read), {})
        if short in _CHARACTERS:
            return _names([receiver], _ALL), {}
    if short == "all" and call.args and isinstance(call.args[0], ast.GeneratorExp):
        generator = call.args[0]
        target, tested = generator.generators[0], proven(generator.elt, read, imported, {})[0]
        if isinstance(target.target, ast.Name) and target.target.id in {*tested, *_allowing(generator.elt)}:
            return _names([target.iter], _ALL), {}
    if _VALIDATOR.search(short):
        return _names(call.args, _ALL), {}
    return NOT_PROVEN


def _allowing(test: ast.expr) -> set[str]:
    """Names that stand on the left of an `in`, as each character of a text does."""
    compared = (node for node in ast.walk(test) if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In))
    return {node.left.id for node in compared if isinstance(node.left, ast.Name)}


def _inside(node: ast.expr, read: Read) -> Proven:
    """The path is inside of a folder, if `..` and links were worked out before anybody looked."""
    return {} if "unresolved" in read(node).kinds else _names([node], PATH)


def _elements(call: ast.Call) -> list[ast.expr]:
    return [
        each for arg in call.args for each in (arg.elts if isinstance(arg, ast.List | ast.Tuple | ast.Set) else [arg])
    ]


def _names(nodes: Iterable[ast.expr], kinds: Iterable[str]) -> Proven:
    """All names in the expressions, but for modules and what is called."""
    removed = frozenset(kinds)
    called = {id(each.func) for node in nodes for each in ast.walk(node) if isinstance(each, ast.Call)}
    found = [each for node in nodes for each in ast.walk(node) if id(each) not in called]
    names = {each.id for each in found if isinstance(each, ast.Name)}
    names |= {f"self.{each.attr}" for each in found if isinstance(each, ast.Attribute)}
    return dict.fromkeys(names, removed) if removed else {}


def _merged(parts: Iterable[Proven]) -> Proven:
    found: Proven = {}
    for part in parts:
        for name, kinds in part.items():
            found[name] = found.get(name, frozenset()) | kinds
    return found


def _common(parts: Iterable[Proven]) -> Proven:
    first, *others = parts
    return {
        name: kinds for name, kinds in first.items() if all(kinds <= other.get(name, kinds - kinds) for other in others)
    }
