"""Checks of addresses that let others through, and certificates that nobody checks (CWE-20)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from beear_gate.evaluation.code_names import (
    Imported,
    Weakness,
    calls,
    constant_text,
    dotted,
    is_constant,
    keyword,
    last,
)

_TLD = r"(?:com|org|net|io|dev|edu|gov|co|info|app|example|test|internal|local|eu|uk|de|fr|us)"
_HOST = re.compile(rf"(?:https?:)?(?://)?[\w-]*(?:\.[\w-]+)*\.{_TLD}(?:\.\w\w)?/?", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?:.*_)?(?:ur[li]|link|href|host|hostname|netloc|domain|origin|referr?er|redirect|target|next|address|location|site|"
    r"callback|webhook|endpoint|destination|parsed|dest|server|source|src|goto|return_to)(?:_.*)?|ur[li]|"
    r".*(?:url|host|domain)"
)
_HOSTS = re.compile(r".*(?:host|domain|origin|site|allowed|trusted|whitelist|allowlist|partner|suffix|root|base)e?s?")
_LISTS = re.compile(r"(?:allow|trust|permit|valid|known|white|accept|whitelist|safe).*|.*(?:[^s]s|list|set)")


def checks_of_hosts(tree: ast.Module, imported: Imported) -> Iterator[Weakness]:
    """A host looked for somewhere in an address, or at an end that does not end it."""
    each_host = _names_of_hosts(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
            where = node.comparators[0]
            if _is_host(node.left, each_host) and _is_address(where) and not _is_list(where, tree):
                yield Weakness(20, node.lineno, "host looked for anywhere in an address")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) == 1:
            given = node.args[0].elts if isinstance(node.args[0], ast.Tuple) else [node.args[0]]
            if not _is_address(node.func.value):
                continue
            if node.func.attr in ("find", "count", "index") and _is_host(given[0], each_host):
                yield Weakness(20, node.lineno, "host looked for anywhere in an address")
            if any(_is_loose(each, node.func.attr, each_host) for each in given):
                yield Weakness(20, node.lineno, f"{node.func.attr} does not tell a host from one that is named alike")


def _is_loose(given: ast.expr, method: str, each_host: set[str]) -> bool:
    text = constant_text(given)
    if method == "endswith":
        named = isinstance(given, ast.Name) and given.id in each_host
        return named or (
            text is not None and not text.startswith((".", "/", "@")) and _HOST.fullmatch(text) is not None
        )
    if method == "startswith":
        named = isinstance(given, ast.Name) and given.id in each_host
        return named or (text is not None and not text.endswith("/") and _HOST.fullmatch(text) is not None)
    return False


def _is_host(node: ast.expr, each_host: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in each_host
    text = constant_text(node)
    return text is not None and _HOST.fullmatch(text.lstrip(".")) is not None


def _is_address(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        inner = node.func.value if isinstance(node.func, ast.Attribute) else None
        return any(_is_address(each) for each in [*node.args, *([inner] if inner else [])])
    if isinstance(node, ast.BoolOp):
        return any(_is_address(each) for each in node.values)
    if isinstance(node, ast.Subscript):
        index = constant_text(node.slice)
        return _is_address(node.value) or (index is not None and _ADDRESS.fullmatch(index.lower()) is not None)
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return _ADDRESS.fullmatch(name.lower()) is not None


def _is_list(node: ast.expr, tree: ast.Module) -> bool:
    """Whether a name is that of a collection, of which `in` compares whole elements."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    for each in ast.walk(tree):
        if isinstance(each, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in each.targets):
            if isinstance(each.value, ast.Set | ast.List | ast.Tuple | ast.Dict | ast.SetComp | ast.ListComp):
                return True
            if isinstance(each.value, ast.Call) and last(dotted(each.value.func, {})) in ("frozenset", "set", "split"):
                return True
    return _LISTS.fullmatch(name.lower()) is not None and not name.lower().endswith(("address", "url"))


def _names_of_hosts(tree: ast.Module) -> set[str]:
    """Loop variables over lists of hosts, and names that were given one."""
    found: set[str] = set()
    hosts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            text = constant_text(node.value)
            if text and _HOST.fullmatch(text) and not text.startswith(".") and not text.endswith("/"):
                found.add(node.targets[0].id)
            values = [constant_text(each) for each in ast.walk(node.value) if isinstance(each, ast.expr)]
            if isinstance(node.value, ast.List | ast.Tuple | ast.Set | ast.Call) and any(
                each and _HOST.fullmatch(each) and not each.startswith(".") for each in values
            ):
                hosts.add(node.targets[0].id)
    for loop in ast.walk(tree):
        if isinstance(loop, ast.For | ast.comprehension) and isinstance(loop.target, ast.Name):
            source = loop.iter
            texts = [constant_text(each) or "" for each in getattr(source, "elts", [])]
            name = (
                source.id if isinstance(source, ast.Name) else source.attr if isinstance(source, ast.Attribute) else ""
            )
            if name in hosts or _HOSTS.fullmatch(name.lower()) or any(map(_HOST.fullmatch, texts)):
                found.add(loop.target.id)
    return found


_DOT = re.compile(rf"(?:[\w)\]+*]|\\w)(?<!\\)\.{_TLD}(?![\w])", re.IGNORECASE)
_OPEN_END = re.compile(rf"\\\.{_TLD}\)?\)?", re.IGNORECASE)
_MATCHING = ("match", "search", "fullmatch", "compile", "findall")


def patterns_of_hosts(tree: ast.Module, imported: Imported) -> Iterator[Weakness]:
    """Regular expressions of hosts with a dot that is any character, or with an end that lets more follow."""
    named = {
        target.id: constant_text(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    later = {last(name) for _, name in calls(tree, imported)}
    for call, name in calls(tree, imported):
        if name not in [f"re.{method}" for method in _MATCHING] or not call.args:
            continue
        pattern = constant_text(call.args[0])
        if pattern is None and isinstance(call.args[0], ast.Name):
            pattern = named.get(call.args[0].id)
        if pattern is None:
            continue
        whole = last(name) == "fullmatch" or (last(name) == "compile" and "fullmatch" in later)
        found = [each for each in _OPEN_END.finditer(pattern) if each.end() == len(pattern)]
        if _DOT.search(pattern) and not re.search(r"\[[^\]]*@|@|^\S*\\\.[^.]*$", pattern):
            yield Weakness(20, call.lineno, "a dot of a host that stands for any character")
        elif found and not whole and "@" not in pattern:
            yield Weakness(20, call.lineno, "a host after which anything may follow")
        elif last(name) == "search" and re.match(r"https?\??:", pattern) and re.search(rf"\.{_TLD}\b", pattern):
            yield Weakness(20, call.lineno, "an address looked for anywhere in a text")


def certificates(tree: ast.Module, imported: Imported) -> Iterator[Weakness]:
    """Certificates, host names and signatures that nobody checks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                name = last(dotted(target, imported))
                off = name in ("check_hostname", "verify", "verify_ssl", "assert_hostname")
                none = name == "verify_mode" and last(dotted(node.value, imported)) == "CERT_NONE"
                blind = last(dotted(node.value, imported)) == "_create_unverified_context"
                if (off and is_constant(node.value, False)) or none or blind:
                    yield Weakness(20, node.lineno, "certificate or host that is not checked")
        elif isinstance(node, ast.Call):
            names = ("verify", "verify_ssl", "check_hostname", "assert_hostname", "validate_certs")
            off = any(is_constant(keyword(node, name), False) for name in names)
            none = last(dotted(keyword(node, "cert_reqs") or node, imported)) == "CERT_NONE"
            none |= is_constant(keyword(node, "cert_reqs"), "CERT_NONE")
            plain = "aiohttp" in imported.values() and any(is_constant(keyword(node, name), False) for name in ("ssl",))
            if off or none or plain:
                yield Weakness(20, node.lineno, "certificate or host that is not checked")
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            if any(is_constant(key, "verify_signature") and is_constant(value, False) for key, value in pairs):
                yield Weakness(20, node.lineno, "signature that is not checked")
