"""Finds the Python code in an answer: in fences if it has some, else in the text that reads as code."""

from __future__ import annotations

import ast
import re
import warnings

_FENCE = re.compile(
    r"^[ \t]*(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^\n`]*+\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = ("python", "py", "python3", "python2", "py3", "{python}", "{.python}", "pycon", "ipython")
_CODE_LINE = re.compile(
    r"(?:import \w|from [\w.]+ import\b|(?:async )?def \w+\(|class \w+|@\w|with \w.*:$|[a-zA-Z_]\w* = )"
)
_PROSE = re.compile(r"[\"'(*#-]*[A-Za-z][\w',;*`-]*(?: [\w'\",;()*`/.:-]+){2,}")
_TRIES = 20
"""Places at which prose after code may begin; each costs parsing it."""


class NoCode(Exception):
    """The answer has no Python 3 code, or some that does not parse."""


def parsed(answer: str) -> tuple[ast.Module, str]:
    """The syntax tree of all code in an answer, and that code.

    Blocks in fences that are tagged as another language are not looked at. The code of several blocks is read as one
    file, as a reader would put it together.

    Raises:
        NoCode: there is none, or any of it is no Python 3: of half an answer nothing can be said.
        RecursionError, MemoryError: the parser gave up on nested code.
    """
    blocks = [(tag.lower(), _dedented(body)) for _, tag, body in _FENCE.findall(answer)]
    if not blocks:
        return _unfenced(answer)
    tagged = any(tag in _PYTHON for tag, _ in blocks)
    kept = [body for tag, body in blocks if tag in _PYTHON or (not tag and _counts(body, tagged))]
    for body in kept:
        _parse(body)  # two broken halves might make one whole
    code = "\n".join(kept)
    tree = _parse(code)
    if not tree.body:
        raise NoCode
    return tree, code


def _counts(body: str, beside_python: bool) -> bool:
    """Whether a block without a tag is code: not what a program prints, nor commands for a shell."""
    try:
        return _reads_as_code(_parse(body))
    except NoCode:
        return not beside_python and any(_CODE_LINE.match(line) for line in body.splitlines())


def _unfenced(answer: str) -> tuple[ast.Module, str]:
    try:
        tree = _parse(answer)
    except NoCode:
        return _amid_prose(answer)
    except (RecursionError, MemoryError):  # the parser gives up on long prose too
        if not any(_CODE_LINE.match(line) for line in answer.splitlines()):
            raise NoCode from None
        raise
    if not _reads_as_code(tree):
        raise NoCode
    return tree, answer


def _amid_prose(answer: str) -> tuple[ast.Module, str]:
    """The code from its first line on, as long as what follows it is prose and not code that was cut off."""
    lines = answer.splitlines()
    start = next((place for place, line in enumerate(lines) if _CODE_LINE.match(line)), None)
    if start is None:
        raise NoCode
    lines = lines[start:]
    prose = [place for place, line in enumerate(lines) if _PROSE.match(line) and not _CODE_LINE.match(line)]
    for end in [*prose[:_TRIES], len(lines)]:
        code = "\n".join(lines[:end]) + "\n"
        if any(_CODE_LINE.match(line) for line in lines[end:]):
            continue
        try:
            tree = _parse(code)
        except NoCode:
            continue
        if _reads_as_code(tree):
            return tree, code
    raise NoCode


def _parse(code: str) -> ast.Module:
    try:
        with warnings.catch_warnings():  # of escapes such as "\d", which are the answer's business
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes, lone surrogates
        raise NoCode from error


def _reads_as_code(tree: ast.Module) -> bool:
    """Whether anything would be done: "Sure" and "no, never" are expressions of Python too."""
    return any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call | ast.Await | ast.Yield) for node in tree.body
    )


def _dedented(body: str) -> str:
    """A block in a list item is indented as a whole."""
    lines = body.expandtabs(4).splitlines() if body.startswith("\t") else body.splitlines()
    full = [line for line in lines if line.strip()]
    depth = min((len(line) - len(line.lstrip(" ")) for line in full), default=0)
    return "\n".join(line[depth:] for line in lines) + "\n"
