"""Where what a stranger wrote does harm: files (CWE-22), commands (78), pages (79) and queries (89)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

from beear_gate.evaluation.code_names import (
    Function,
    Imported,
    Weakness,
    constant_text,
    dotted,
    is_constant,
    keyword,
    last,
)
from beear_gate.evaluation.code_values import NOTHING, Value

_SQL = re.compile(
    r"(?s:\bSELECT\b.*\bFROM\b)|\bINSERT\s+(?:OR\s+\w+\s+)?INTO\b|\bREPLACE\s+INTO\b|\bUPDATE\s+\S+\s+SET\b|"
    r"\bDELETE\s+FROM\b|\b(?:DROP|ALTER|CREATE|TRUNCATE)\s+(?:TABLE|DATABASE|USER|VIEW|INDEX)\b|\bWHERE\s+[\w.{}\"`]+\s*"
    r"(?:=|<|>|LIKE\b|IN\b)|\bORDER\s+BY\s|"
    r"(?i:^\s*(?:select\s+(?:\*|[\w.(*){}]+(?:\s*,\s*[\w.(*){}]+)*)\s+from\s+\S+(?:\s+where\s|\s*$|\s+order\s)|insert\s+into\s+\S+\s*(?:\(|values)|"
    r"delete\s+from\s+\S+\s+where|update\s+\S+\s+set\s+\w+\s*=))"
)
_TAG = re.compile(
    r"</?(?:html|head|body|title|h[1-6]|p|div|span|a|b|i|u|em|strong|small|ul|ol|li|dl|dt|dd|table|thead|tbody|tr|t[dh]|"
    r"img|script|style|form|input|option|select|button|textarea|br|hr|pre|label|section|article|header|footer|nav|main|"
    r"blockquote|mark|figure|iframe|svg)(?:\s[^<]*)?/?>|<(?:a|img|input|div|span|option|iframe)\s[^>]*=",
    re.IGNORECASE,
)  # fmt: skip
_FILES = {
    "open", "io.open", "codecs.open", "os.open", "os.remove", "os.unlink", "os.rmdir", "os.rename", "os.replace",
    "os.mkdir", "os.makedirs", "os.listdir", "os.scandir", "os.symlink", "os.link", "shutil.rmtree", "shutil.copy",
    "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.move", "flask.send_file", "send_file", "FileResponse",
    "fastapi.responses.FileResponse", "starlette.responses.FileResponse", "aiofiles.open", "gzip.open", "bz2.open",
    "lzma.open", "pandas.read_csv", "PIL.Image.open", "bottle.static_file",
}  # fmt: skip
_FILE_METHODS = {
    "read_text", "read_bytes", "write_text", "write_bytes", "open", "unlink", "rename", "replace", "mkdir", "rmdir",
    "touch", "iterdir", "symlink_to",
}  # fmt: skip
_SHELLS = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
    "commands.getoutput", "asyncio.subprocess.create_subprocess_shell",
}  # fmt: skip
_PROGRAMS = {
    "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output", "subprocess.Popen",
    "os.execv", "os.execvp", "os.spawnv", "pty.spawn",
}  # fmt: skip
_SHELL_NAMES = re.compile(r"(?:.*/)?(?:ba|z|da|k)?sh|cmd(?:\.exe)?|powershell(?:\.exe)?|pwsh", re.IGNORECASE)
_PAGES = ("make_response", "Response", "HttpResponse", "HTMLResponse", "Markup", "mark_safe")
_PLAIN_TYPES = ("text/plain", "application/json", "text/csv", "application/octet-stream")
_FILTERED = re.compile(r"\|\s*(?:e|escape|tojson|urlencode|int)\b|^\s*[\w.]*(?:url_for|loop\.index|csrf_token)\b")
_HOLE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def built(line: int, value: Value) -> Iterator[Weakness]:
    """A query or a page that was put together of text and something else."""
    if "sql" in value.kinds and _SQL.search(value.text):
        yield Weakness(89, line, "query put together from an argument")
    if "html" in value.kinds and _TAG.search(value.text):
        yield Weakness(79, line, "page put together from an argument that is not escaped")


def at_call(
    call: ast.Call,
    name: str,
    receiver: Value,
    arguments: Sequence[Value],
    named: Mapping[str, Value],
    imported: Imported,
) -> Iterator[Weakness]:
    """What a call does with what it is given."""
    first = arguments[0] if arguments else next(iter(named.values()), NOTHING)
    short = last(name)
    opened = name in _FILES and any(value.escapes for value in (*arguments, *named.values()))
    if opened or (short in _FILE_METHODS and receiver.escapes and "pathlib" in receiver.kinds):
        yield Weakness(22, call.lineno, "path from an argument that may leave its folder")
    elif short == "save" and first.escapes:
        yield Weakness(22, call.lineno, "upload saved under the name that came with it")
    if _runs_freely(call, name, first, named):
        yield Weakness(78, call.lineno, "command put together from an argument")
    if short in ("execute", "executemany", "executescript", "raw") and {"remote", "sql"} <= first.kinds:
        yield Weakness(89, call.lineno, "query from a request")
    yield from _page(call, name, first, imported)


def _runs_freely(call: ast.Call, name: str, first: Value, named: Mapping[str, Value]) -> bool:
    """Whether an argument can say what else a shell shall do, or which program shall run."""
    command = named.get("args", first)
    shell = keyword(call, "shell")
    if name in _SHELLS or last(name) == "exec_command" or is_constant(shell, True) or is_constant(shell, 1):
        return "shell" in command.kinds
    if name == "asyncio.create_subprocess_exec":
        return bool(first.kinds & {"split"}) or ("shell" in first.kinds and not isinstance(call.args[0], ast.Starred))
    if name not in _PROGRAMS:
        return False
    if command.items is None:
        text = bool(command.text) or bool(command.kinds & {"split", "remote"})
        return "shell" in command.kinds and text
    program, *rest = command.items or (NOTHING,)
    if "shell" in program.kinds or any("split" in each.kinds for each in rest):
        return True
    through_shell = _SHELL_NAMES.fullmatch(program.text) and any(
        re.fullmatch(r"-\w*c|/[cC]|-Command", each.text) for each in rest
    )
    through_python = re.fullmatch(r"python[\d.]*", program.text) and any(each.text == "-c" for each in rest)
    return bool(through_shell or through_python) and any("shell" in each.kinds for each in rest)


def _page(call: ast.Call, name: str, first: Value, imported: Imported) -> Iterator[Weakness]:
    short = last(name)
    if short in _PAGES and "html" in first.kinds and not _is_plain(call):
        yield Weakness(79, call.lineno, "page from an argument that is not escaped")
    if short in ("render_template_string", "from_string") and "html" in first.kinds:
        yield Weakness(79, call.lineno, "template put together from an argument")
    template = name in ("jinja2.Template", "jinja2.environment.Template")
    if not (template or short in ("render_template_string", "from_string")):
        return
    if template and "html" in first.kinds:
        yield Weakness(79, call.lineno, "template put together from an argument")
    holes = _HOLE.findall(first.text)
    escaping = not template or is_constant(keyword(call, "autoescape"), True)
    unsafe = any(re.search(r"\|\s*safe\b", hole) or not (escaping or _FILTERED.search(hole)) for hole in holes)
    if unsafe and _TAG.search(first.text):
        yield Weakness(79, call.lineno, "template that does not escape")


def _is_plain(call: ast.Call) -> bool:
    kind = constant_text(keyword(call, "mimetype", "content_type", "media_type")) or ""
    return kind.startswith(_PLAIN_TYPES)


def route_of(node: Function, imported: Imported) -> str:
    """The framework whose request a function answers; "" for none."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        name = dotted(call.func if call else decorator, imported)
        if call and last(name) in ("route", "get", "post", "put", "delete", "patch") and "." in name:
            origins = {origin.partition(".")[0] for origin in imported.values()}
            return "fastapi" if origins & {"fastapi", "litestar"} else "flask"
    return ""


def at_return(node: ast.expr, value: Value, route: str, imported: Imported) -> Iterator[Weakness]:
    """What a route returns as text is a page, whatever it holds."""
    body: ast.expr = node
    held = value
    if isinstance(node, ast.Tuple) and node.elts:
        body, held = node.elts[0], (value.items or (value,))[0]
        texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
        if any(isinstance(text, str) and text.startswith(_PLAIN_TYPES) for text in texts):
            return
    if route != "flask" or isinstance(body, ast.Dict | ast.List | ast.ListComp | ast.DictComp):
        return
    if "html" in held.kinds and not (isinstance(body, ast.Call) and last(dotted(body.func, imported)) in _PAGES):
        yield Weakness(79, node.lineno, "answer of a route that is not escaped")
