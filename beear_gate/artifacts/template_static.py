"""What the syntax tree of a chat template says, before it is rendered."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment

from beear_gate.artifacts.template_text import INVISIBLE, is_markup, orders
from beear_gate.manifest import quoted

Problem = tuple[str, str]
"""(rule, sentence)."""

# What leads from a value of Python to its interpreter. Dunders are refused whatever they are called.
_INTERNALS = {
    "mro", "func_globals", "func_code", "f_globals", "f_locals", "f_builtins", "f_back", "f_code", "gi_frame",
    "gi_code", "cr_frame", "ag_frame", "tb_frame", "tb_next", "co_code", "im_func", "im_self", "format_map", "popen",
}  # fmt: skip
_DUNDER = re.compile(r"__\w+__|\b_TemplateReference|\bos\.(?:system|popen)|__import__|\bsubprocess\b|/etc/passwd")
_ALIENS = {"lipsum", "cycler", "joiner", "self", "request", "config", "url_for", "get_flashed_messages", "varargs"}
_BUILDS = {"join", "format", "reverse", "replace", "attr", "string", "urlencode", "list", "random"}
_LOADS = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def static_problems(tree: nodes.Template, environment: SandboxedEnvironment) -> Iterator[Problem]:
    """Escapes from the sandbox, and constants that no honest template holds."""
    for loading in tree.find_all(_LOADS):
        yield "template-escape", f"line {loading.lineno} loads another file"
    for name in tree.find_all(nodes.Name):
        if name.name in _ALIENS and name.ctx == "load":
            yield "template-escape", f"line {name.lineno} uses {name.name}, which no chat needs"
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter)):
        yield from _access(node, environment)
    for line, text in constants(tree, environment):
        if _DUNDER.search(text):
            yield "template-escape", f"line {line} holds {quoted(text.strip())}"
        if hidden := INVISIBLE.search(text):
            yield "template-hidden", f"line {line} holds the invisible character U+{ord(hidden[0]):04X}"
        if order := orders(text):
            yield "template-inserts", f"line {line} holds {quoted(order)}"


def _access(node: nodes.Node, environment: SandboxedEnvironment) -> Iterator[Problem]:
    """Attributes that lead to internals, by whatever syntax, and names that are put together first."""
    if isinstance(node, nodes.Getattr):
        if node.attr.startswith("__") or node.attr in _INTERNALS:
            yield "template-escape", f"line {node.lineno} reaches for {quoted(node.attr)}"
        return
    if isinstance(node, nodes.Filter):
        if node.name == "random":
            yield "template-trigger", f"line {node.lineno} writes something else each time ({node.name})"
        if node.name not in ("attr", "map", "selectattr", "rejectattr", "groupby"):
            return
        arguments = [*node.args, *(pair.value for pair in node.kwargs if pair.key in ("attribute", "name"))]
        first = arguments[0] if arguments else None
        dynamic = node.name == "attr" and _constant(first, environment) is None
    else:
        assert isinstance(node, nodes.Getitem)
        first, dynamic = node.arg, _is_built(node.arg)
    value = _constant(first, environment)
    if dynamic:
        yield "template-escape", f"line {node.lineno} puts the name of an attribute together"
    elif isinstance(value, str) and (value.startswith("__") or any(part in _INTERNALS for part in value.split("."))):
        yield "template-escape", f"line {node.lineno} reaches for {quoted(value)}"


def _is_built(argument: nodes.Expr) -> bool:
    """Whether a subscript is a text that is put together, rather than a name or a number."""
    if isinstance(argument, nodes.Concat):
        return True
    if isinstance(argument, nodes.Filter):
        return argument.name in _BUILDS
    if isinstance(argument, nodes.Add | nodes.Mod | nodes.Mul):
        inner = argument.find_all(nodes.Const)
        return any(isinstance(each.value, str) for each in inner)
    return False


def _constant(node: nodes.Node | None, environment: SandboxedEnvironment) -> object:
    """The value of a constant expression, or None."""
    if not isinstance(node, nodes.Expr):
        return None
    try:
        return node.as_const(nodes.EvalContext(environment))
    except Exception:  # not constant, or not computable: then it is none
        return None


def constants(tree: nodes.Template, environment: SandboxedEnvironment) -> Iterator[tuple[int, str]]:
    """(line, text) of every constant text, also of those that are put together from constants."""
    for data in tree.find_all(nodes.TemplateData):
        yield data.lineno, data.data
    for node in tree.find_all((nodes.Const, nodes.Concat, nodes.Add, nodes.Filter, nodes.Mod)):
        # A product of constants could be huge, so those are not computed.
        if any(True for _ in node.find_all((nodes.Mul, nodes.Pow))):
            continue
        value = _constant(node, environment)
        if isinstance(value, str):
            yield node.lineno, value


def tested_texts(tree: nodes.Template, environment: SandboxedEnvironment) -> set[str]:
    """Constant texts in conditions, comparisons, calls and tables: what a template may look for in a message."""
    found: set[str] = set()
    for node in tree.find_all((nodes.Compare, nodes.Call, nodes.Test, nodes.Dict, nodes.List, nodes.Tuple)):
        for inner in node.find_all((nodes.Const, nodes.Concat, nodes.Add)):
            value = _constant(inner, environment)
            if isinstance(value, str) and value.strip():
                found.add(value)
    return {text for text in found if len(text) <= 200}


def tested_numbers(tree: nodes.Template) -> set[int]:
    """Whole numbers in comparisons: lengths and counts that a template may wait for."""
    inner = (const.value for node in tree.find_all(nodes.Compare) for const in node.find_all(nodes.Const))
    return {value for value in inner if type(value) is int and 2 < value <= 20_000}


def plain_words(texts: set[str]) -> list[str]:
    """Those texts that are words rather than markup."""
    return sorted(text for text in texts if not is_markup(text))
