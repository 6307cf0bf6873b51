"""Weaknesses that show at one place of a program: CWE-22 (archives), 502 and 732.

Those of CWE-20 are in `code_hosts`, of CWE-798 in `code_secrets`.
"""

from __future__ import annotations

import ast
import re
import stat
from collections.abc import Iterator

from beear_gate.evaluation.code_hosts import certificates, checks_of_hosts, patterns_of_hosts
from beear_gate.evaluation.code_names import (
    SECRET,
    Imported,
    Weakness,
    argument,
    around,
    calls,
    constant_text,
    dotted,
    imports,
    is_constant,
    is_signed,
    keyword,
    last,
)
from beear_gate.evaluation.code_secrets import secrets


def weaknesses(tree: ast.Module) -> set[Weakness]:
    """What is wrong in a program without regard to where its values come from."""
    imported = imports(tree)
    rules = (checks_of_hosts, patterns_of_hosts, certificates, secrets, _archives, _objects, _modes)
    return {each for rule in rules for each in rule(tree, imported)}


# --- CWE-22: archives

_LOOKED = ("is_relative_to", "relative_to", "commonpath", "commonprefix", "data_filter", "tar_filter")


def _archives(tree: ast.Module, imported: Imported) -> Iterator[Weakness]:
    """Archives unpacked without a filter, in functions where nobody looks at the members' names."""
    origins = {name.partition(".")[0] for name in imported.values()}
    for call, name in calls(tree, imported):
        short = last(name)
        if short == "extractall" or (short == "extract" and origins & {"tarfile", "zipfile"} and "." in name):
            tar = "tarfile" in origins
        elif name == "shutil.unpack_archive":
            tar = True
        else:
            continue
        kind = keyword(call, "filter")
        filtered = tar and kind is not None and constant_text(kind) != "fully_trusted"
        if not (filtered or _looks_at_names(around(tree, call.lineno), tree, imported)):
            yield Weakness(22, call.lineno, "archive unpacked wherever its members say")


def _looks_at_names(function: ast.AST, tree: ast.Module, imported: Imported) -> bool:
    """Whether a function, or one of the same file that it calls, holds members' paths against the folder."""
    own = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    named = {each.id for each in ast.walk(function) if isinstance(each, ast.Name)} & own.keys()
    for node in (each for part in [function, *(own[name] for name in named)] for each in ast.walk(part)):
        name = (
            last(dotted(node.func if isinstance(node, ast.Call) else node, imported))
            if isinstance(node, ast.expr)
            else ""
        )
        if name in _LOOKED or name == "parents":
            return True
        if isinstance(node, ast.Call) and name == "startswith" and constant_text(node.args[0]) is None:
            return True
        if (
            isinstance(node, ast.Compare)
            and is_constant(node.left, "..")
            and isinstance(node.ops[0], ast.In | ast.NotIn)
        ):
            return True
    return False


# --- CWE-502

_LOADERS = {
    "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all", "cloudpickle.loads",
    "cloudpickle.load", "joblib.load", "jsonpickle.decode", "jsonpickle.loads", "dill.loads", "dill.load",
    "shelve.open",
    "pandas.read_pickle", "marshal.loads", "marshal.load", "pickle.loads", "pickle.load", "pickle.Unpickler",
    "_pickle.loads", "cPickle.loads", "cPickle.load",
}  # fmt: skip
_SAFE_LOADERS = ("SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader")


def _objects(tree: ast.Module, imported: Imported) -> Iterator[Weakness]:
    """Data that may bring its own code, unless somebody compares its signature first."""
    for call, name in calls(tree, imported):
        loader = argument(call, 1, "Loader")
        wild = name in _LOADERS
        if name in ("yaml.load", "yaml.load_all"):
            wild = loader is None or last(dotted(loader, imported)) not in _SAFE_LOADERS
        elif last(name) == "YAML" and "ruamel" in name:
            wild = constant_text(argument(call, 0, "typ")) == "unsafe"
        elif name == "torch.load":
            wild = is_constant(keyword(call, "weights_only"), False)
        elif name == "numpy.load":
            wild = is_constant(keyword(call, "allow_pickle"), True)
        if wild and not is_signed(around(tree, call.lineno), imported):
            yield Weakness(502, call.lineno, "data that may bring its own code")


# --- CWE-732

_CHMOD = re.compile(r"\bchmod\s+(?:-R\s+)?(?:[0-7]?[0-7]{2}[2367]\b|[ugo]*[ao][ugo]*[+=][rx]*w|\+[rx]*w)")
_MODE_PLACES = {
    "os.chmod": 1, "os.fchmod": 1, "os.lchmod": 1, "os.open": 2, "os.mkdir": 1, "os.makedirs": 1, "os.mkfifo": 1,
}  # fmt: skip


def _modes(tree: ast.Module, imported: Imported) -> Iterator[Weakness]:
    """Files that anybody may write, and secrets that anybody may read."""
    constants = {
        target.id: _mode(node.value, imported)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call, name in calls(tree, imported):
        short = last(name)
        if name == "os.umask":
            mask = _mode(call.args[0], imported) if call.args else None
            if mask is not None and not mask & stat.S_IWOTH:
                yield Weakness(732, call.lineno, "new files that anybody may write")
            continue
        place = _MODE_PLACES.get(name, 0 if short in ("chmod", "mkdir", "touch") else None)
        given = None if place is None else argument(call, place, "mode")
        mode = constants.get(given.id) if isinstance(given, ast.Name) else _mode(given, imported)
        if mode is not None and _too_open(mode, short, around(tree, call.lineno)):
            yield Weakness(732, call.lineno, "file that others may write, or secret that they may read")
    for node in ast.walk(tree):
        if _CHMOD.search(" ".join(_words(node))[:2000]):
            yield Weakness(732, getattr(node, "lineno", 0), "file that anybody may write")


def _too_open(mode: int, short: str, function: ast.AST) -> bool:
    if mode & stat.S_IWOTH:
        return not mode & stat.S_ISVTX
    return short in ("chmod", "fchmod", "open") and bool(mode & stat.S_IROTH) and _keeps_secrets(function)


def _keeps_secrets(function: ast.AST) -> bool:
    """Whether the name of a function, of an argument or of a file says that it holds a secret."""
    names = [function.name] if isinstance(function, ast.FunctionDef) else []
    names += [node.arg for node in ast.walk(function) if isinstance(node, ast.arg)]
    names += [
        text for node in ast.walk(function) if (text := constant_text(node if isinstance(node, ast.expr) else None))
    ]
    return any(SECRET.search(name.lower()) for name in names if len(name) <= 100)


def _mode(node: ast.expr | None, imported: Imported) -> int | None:
    """The value of 0o644 or stat.S_IRUSR | stat.S_IWUSR."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _mode(node.left, imported), _mode(node.right, imported)
        if isinstance(node.op, ast.BitOr):
            return (left or 0) | (right or 0) if left is not None or right is not None else None
        return None
    name = last(dotted(node, imported)) if isinstance(node, ast.Attribute | ast.Name) else ""
    return getattr(stat, name) if re.fullmatch(r"S_I[RWX](?:USR|GRP|OTH|WXU)?|S_IRWX[UGO]|S_ISVTX", name) else None


def _words(node: ast.AST) -> list[str]:
    """A command line as it is written: one text, or the elements of a list."""
    if isinstance(node, ast.List | ast.Tuple):
        return [constant_text(each) or "" for each in node.elts]
    if isinstance(node, ast.JoinedStr):
        return ["".join(constant_text(each) or "" for each in node.values)]
    text = constant_text(node) if isinstance(node, ast.Constant) else None
    return [text] if text is not None and len(text) < 500 else []
