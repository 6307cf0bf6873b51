"""Credentials that are written into a program (CWE-798)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from beear_gate.evaluation.code_names import Imported, Weakness, calls, constant_text, dotted, keyword, last

_NAME = re.compile(
    r"(?:.*[^a-z])?(?:pass(?:word|wd|phrase|code)?|pwd|pw|secret|(?:api|secret|private|access|auth|signing|encryption|jwt|"
    r"hmac|master|app|account|shared|session|client|storage|webhook|stripe|aws)_?(?:key|secret|token|pass|password)|"
    r"token|credential|connection_string|secret_access_key|secret_key_base|bearer|admin_key|license_key|fernet_key)s?"
    r"(?:_(?:hash|value|default|prod|dev|1|2))?"
)
_TOKEN = re.compile(r"(?:.*[^a-z])?tokens?")
_HARMLESS = re.compile(
    r"|\*+|[./~].*|https?://[^@]*|.*\{.*\}.*|\$.*|%.*|<.*>|.*\s(?:for|is|to|the|in|of|must|not)\s.*|string|str|text|none|"
    r"null|true|false|required|optional|hidden|bearer|basic|utf-8|.|.*[:?]\s*",
    re.DOTALL,
)
"""What a name for a secret may be given: nothing, a path, a placeholder, a question, a sentence, a type."""
_URL = re.compile(r"\b[a-z][\w+.-]*://[^\s:@/{}$<>]*:[^\s@/{}$<>*]+@[^\s{}]")
_DSN = re.compile(r"(?:^|[\s;])(?:password|pwd|passwd)\s*=\s*[^\s;{}%$'\"]+", re.IGNORECASE)
_KEYS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bsk[-_](?:live|test|proj|ant)?[-_]?\w{8,}|\bxox[abp]-\w{8,}|"
    r"-----BEGIN (?:\w+ )?PRIVATE KEY-----|\bglpat-\w{10,}|\bAIza[\w-]{20,}|^(?:Bearer|Basic|Token) [\w.=+/-]{6,}$"
)
_SECOND = {"HTTPBasicAuth", "login", "BasicAuth", "login_user", "HTTPDigestAuth", "AWS4Auth"}
_SIGNERS = {
    "jwt.encode", "jwt.decode", "hmac.new", "hmac.digest", "cryptography.fernet.Fernet", "Fernet",
    "itsdangerous.URLSafeTimedSerializer", "itsdangerous.URLSafeSerializer", "URLSafeTimedSerializer",
}  # fmt: skip


def secrets(tree: ast.Module, imported: Imported) -> Iterator[Weakness]:
    """Every place at which a secret stands in the program itself."""
    for node in ast.walk(tree):
        if any(_given(name, value) for name, value in _named(node, imported)):
            yield Weakness(798, getattr(node, "lineno", 0), "credential in the program")
        text = constant_text(node) if isinstance(node, ast.Constant) else None
        if text and (_KEYS.search(text) or _URL.search(text)):
            yield Weakness(798, getattr(node, "lineno", 0), "credential in the program")
    for call, name in calls(tree, imported):
        if _in_call(call, name):
            yield Weakness(798, call.lineno, "credential in the program")


def _named(node: ast.AST, imported: Imported) -> Iterator[tuple[str, ast.expr | None]]:
    """What a node gives to which name."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _targets(target, value)
        case ast.AnnAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
            if value is not None:
                yield from _targets(target, value)
        case ast.keyword(arg=str() as name, value=value):
            yield name, value
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                name = constant_text(key) or ""
                if (constant_text(value) or "").lower() != name.lower():
                    yield name, value
        case ast.FunctionDef(args=arguments) | ast.AsyncFunctionDef(args=arguments):
            given = [*arguments.posonlyargs, *arguments.args]
            yield from ((each.arg, value) for each, value in zip(given[::-1], arguments.defaults[::-1], strict=False))
            yield from (
                (each.arg, value) for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            )
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
            yield last(dotted(left, imported)), right
            yield last(dotted(right, imported)), left


def _targets(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case ast.Attribute(attr=name), _:
            yield name, value
        case ast.Subscript(slice=ast.Constant(value=str() as name)), _:
            yield name, value
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            for one, other in zip(targets, values, strict=True):
                yield from _targets(one, other)


def _given(name: str, value: ast.expr | None) -> bool:
    """Whether a name for a secret is given one that is written out, encoded or not, or as what to fall back to."""
    plain = name.lower().replace("-", "_")
    if not _NAME.fullmatch(plain):
        return plain in ("auth", "authorization", "credentials") and _is_pair(value)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "encode":
        value = value.func.value
    if isinstance(value, ast.BoolOp):
        return any(_given(name, each) for each in value.values)
    text = constant_text(value)
    if text is None or _HARMLESS.fullmatch(text.lower()):
        return False
    return not _TOKEN.fullmatch(plain) or (len(text) >= 6 and not text.isupper())


def _is_pair(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Tuple) and len(value.elts) == 2 and bool(constant_text(value.elts[1]))


def _in_call(call: ast.Call, name: str) -> bool:
    texts = [constant_text(each) for each in call.args]
    short = last(name)
    if short in ("get", "getenv", "config", "setdefault") and len(texts) > 1 and texts[0]:
        return _given(texts[0], call.args[1]) and (short != "get" or "environ" in name or "config" in name)
    if short == "add_argument" and texts and texts[0]:
        return _given(texts[0].lstrip("-"), keyword(call, "default"))
    if short in _SECOND and len(texts) > 1:
        return bool(texts[1])
    if name in _SIGNERS:
        place = 1 if name.startswith("jwt.") else 0
        return len(texts) > place and bool(texts[place])
    return short in ("connect", "create_engine", "Connection") and any(_DSN.search(text) for text in texts if text)
