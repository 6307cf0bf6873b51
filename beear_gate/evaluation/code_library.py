"""What functions of libraries make of what they are given, for `code_flow`."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from beear_gate.evaluation.code_names import Imported, constant_text, dotted, keyword, last
from beear_gate.evaluation.code_values import (
    CLEAN,
    INJECTION,
    NOTHING,
    PATH,
    REMOTE,
    Kinds,
    Value,
    concatenated,
    joined,
    union,
)

CHANGING = {"append", "extend", "add", "insert", "update", "write"}
"""Methods that put something into their object."""

_ARCHIVES = ("tarfile.open", "zipfile.ZipFile", "tarfile.TarFile", "tarfile.TarFile.open")
_NO_TEXT = {
    "int", "float", "bool", "len", "ord", "hash", "abs", "round", "isinstance", "id", "complex", "UUID", "ip_address",
    "ip_network", "Decimal", "fromisoformat", "strptime", "uuid4", "hexdigest", "token_hex", "token_urlsafe", "listdir",
    "scandir", "iterdir", "rglob", "glob", "iglob", "walk", "send_from_directory", "compare_digest", "safe_join",
    "is_file", "is_dir", "exists", "isfile", "isdir", "Identifier", "quote_ident", "range", "sum", "index", "count",
}  # fmt: skip
"""Functions whose results cannot carry an attack: numbers, identifiers, names of files that are there."""

_REMOVED: dict[str, Kinds] = {
    "quote": frozenset({"shell", "html"}),  # shlex.quote, urllib.parse.quote
    "list2cmdline": CLEAN,
    "quoteattr": frozenset({"html"}), "clean": frozenset({"html"}), "conditional_escape": frozenset({"html"}),
    "format_html": frozenset({"html"}), "quote_plus": frozenset({"html"}), "urlencode": frozenset({"html"}),
    "dumps": frozenset({"html"}), "secure_filename": PATH | {"remote"}, "basename": PATH,
    "get_valid_filename": PATH | {"remote"}, "resolve": frozenset({"unresolved"}),
    "realpath": frozenset({"unresolved"}), "abspath": frozenset({"unresolved"}), "normpath": frozenset({"unresolved"}),
}  # fmt: skip
"""What comes through no more after a function, by the last part of its name."""

_PASSING = {
    "str", "repr", "bytes", "strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "casefold", "replace",
    "encode", "decode", "expanduser", "expandvars", "fspath", "unquote", "unquote_plus", "b64decode", "join", "list",
    "tuple", "set", "sorted", "reversed", "dict", "items", "values", "keys", "get", "pop", "getlist", "copy", "read",
    "readline", "readlines", "loads", "get_json", "removeprefix", "removesuffix", "zfill", "ljust", "rjust", "center",
    "map", "filter", "zip", "enumerate", "next", "iter", "max", "min", "with_suffix", "as_posix", "absolute", "format",
    "getmembers", "getnames", "namelist", "infolist", "partition", "rpartition", "splitlines", "dedent", "to_dict",
    "model_dump", "getvalue", "recv", "dumps", "format_map", "getall", "cast",
}  # fmt: skip
"""Functions whose results carry what was given to them, or what their object holds."""


def _after(name: str, value: Value) -> Value | None:
    """What a well-known function makes of its argument; None for one that is not known."""
    short = last(name)
    if short in _NO_TEXT:
        return NOTHING
    if short in ("escape", "html_escape", "escape_html") or ("escape" in short.lower() and short != "unescape"):
        return value.without({"html"})
    if short in _REMOVED:
        return value.without(_REMOVED[short])
    if short in _PASSING:
        return Value(value.kinds, value.text if short not in ("lower", "upper") else value.text.upper())
    return None


def _keeps_only_allowed(call: ast.Call, name: str) -> bool:
    """Whether re.sub takes away all but listed characters; of dots, slashes and brackets, it depends on the list."""
    pattern = constant_text(call.args[0]) if call.args else None
    return last(name) == "sub" and pattern is not None and pattern.startswith("[^") and not set("/<&';") & set(pattern)


def result_of(
    call: ast.Call,
    name: str,
    receiver: Value,
    arguments: Sequence[Value],
    named: Mapping[str, Value],
    imported: Imported,
) -> Value:
    """What a call of a function of another file may return.

    Args:
        name: of the function, dotted.
        receiver: the object of a method; NOTHING for a function.
    """
    short, given = last(name), Value(union([*arguments, *named.values()]))
    if name == "input":
        return Value(REMOTE)
    if name in _ARCHIVES:
        return Value(REMOTE - {"remote"})
    if name in ("os.path.join", "pathlib.Path", "pathlib.PurePath") or (short == "joinpath" and arguments):
        parts = [*([receiver] if short == "joinpath" else []), *arguments]
        return joined(parts) if len(parts) > 1 else Value(given.kinds | {"unresolved", "pathlib"})
    if short == "format" and receiver.text:
        return Value(concatenated([receiver, given]).kinds, receiver.text)
    if short == "split" and "shell" in receiver.kinds | given.kinds:
        return Value((receiver.kinds or given.kinds) | {"split"})
    if _keeps_only_allowed(call, name):
        return NOTHING
    if short == "replace" and call.args and constant_text(call.args[0]) in ("<", "&"):
        return receiver.without({"html"})
    if short in ("get", "pop", "setdefault") and isinstance(call.func, ast.Attribute):
        kind = keyword(call, "type")
        if kind is not None and dotted(kind, imported) in ("int", "float", "bool"):
            return NOTHING
        return Value(receiver.kinds | union(arguments[1:]) | named.get("default", NOTHING).kinds)
    if isinstance(call.func, ast.Attribute) and (receiver.kinds or receiver.text):
        more = given.kinds if short in ("join", "replace") else CLEAN
        known = _after(name, Value(receiver.kinds | more, receiver.text))
    else:
        known = _after(name, arguments[0] if short == "str" and arguments else given)
    return known if known is not None else Value((given.kinds | receiver.kinds) & INJECTION)
