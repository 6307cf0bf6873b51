"""YAML with a line for every key, so that a problem found later can be shown where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from beear_gate.errors import Problem
from beear_gate.policy_files.text import read_text, shortened

Keys = tuple[str | int, ...]
"""The way from the top of a document to a value: keys of mappings and indices of lists."""

MOST_VALUES = 100_000
"""Values in one policy; aliases of aliases could otherwise make billions out of a few lines."""


@dataclass(frozen=True)
class Document:
    """One YAML file.

    Attributes:
        lines: where the key of each value stands (for an item of a list: the item).
    """

    path: Path
    text: str
    data: dict[str, Any]
    lines: dict[Keys, int]

    @property
    def top(self) -> Section:
        """The whole document as a section."""
        return Section(self, (), self.data)


@dataclass(frozen=True)
class Section:
    """A value of a document together with its place."""

    document: Document
    keys: Keys
    value: Any

    def __getitem__(self, key: str | int) -> Section:
        """The value below `key`; None with the place it would have where there is no such key."""
        inside = isinstance(key, str) and isinstance(self.value, dict) and key in self.value
        inside = inside or (isinstance(key, int) and isinstance(self.value, list) and 0 <= key < len(self.value))
        return Section(self.document, (*self.keys, key), self.value[key] if inside else None)

    def items(self) -> Iterator[Section]:
        """The items of a list; none where the value is no list."""
        count = len(self.value) if isinstance(self.value, list) else 0
        return (self[number] for number in range(count))

    @property
    def name(self) -> str:
        """The place in words, such as `behaviors[0].limit`."""
        words = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)
        return words.removeprefix(".")

    @property
    def at(self) -> tuple[str, int]:
        """File and line; for a missing key the line of the nearest key around it."""
        keys = self.keys
        while keys and keys not in self.document.lines:
            keys = keys[:-1]
        return str(self.document.path), self.document.lines.get(keys, 1)

    def problem(self, message: str) -> Problem:
        """A problem at this place."""
        return Problem(*self.at, message)


def read_document(path: Path, named_at: tuple[str, int], problems: list[Problem]) -> Document | None:
    """A YAML file whose top level is a mapping; None and a problem where it is none.

    Args:
        named_at: file and line of what names this file.
    """
    text = read_text(path, named_at, problems)
    if text is None:
        return None
    reader = _Reader(path, problems)
    try:
        data = reader.read(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(Problem(str(path), line, f"This is not YAML: {error.problem or error.context}."))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"The character {shortened(text[error.position])} cannot stand in YAML: remove it."
        problems.append(Problem(str(path), line, message))
    except _TooLarge as error:
        problems.append(Problem(str(path), 1, str(error)))
    except RecursionError:
        problems.append(Problem(str(path), 1, "The values are nested too deeply to be read: simplify the file."))
    else:
        if isinstance(data, dict):
            return Document(path, text, data, reader.lines)
        what = "is empty" if data is None else "must be a mapping at its top level"
        problems.append(Problem(str(path), 1, f"The policy {what}: begin with `apiVersion: beear-gate/v1`."))
    return None


class _TooLarge(Exception):
    """Aliases have multiplied the values."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which reads 1e-4 as a number too (YAML 1.1 wants 1.0e-4)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Reader:
    """Turns nodes into plain values and notes the line of each."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self.lines: dict[Keys, int] = {}
        self.open: list[yaml.Node] = []
        self.count = 0

    def read(self, text: str) -> Any:
        self.loader = _Loader(text)
        try:
            node = self.loader.get_single_node()
            return None if node is None else self.value(node, ())
        finally:
            self.loader.dispose()

    def problem(self, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(str(self.path), node.start_mark.line + 1, message))

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise _TooLarge(f"The policy has more than {MOST_VALUES:,} values: move prompts into files.")
        if any(node is outer for outer in self.open):
            self.problem(node, "The anchor contains itself: write the value out.")
            return None
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return self.mapping(node, keys)
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return self.sequence(node, keys)
            return self.scalar(node)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, "A key must be a word, not a list or a mapping.")
                continue
            # The text as written: YAML 1.1 would make booleans of keys such as `on`.
            key = key_node.value
            if key in found:
                first = self.lines[(*keys, key)]
                self.problem(key_node, f'The key "{key[:60]}" stands in line {first} already: remove one of them.')
                continue
            self.lines[(*keys, key)] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, (*keys, key))
        return found

    def sequence(self, node: yaml.SequenceNode, keys: Keys) -> list[Any]:
        found = []
        for number, item in enumerate(node.value):
            self.lines[(*keys, number)] = item.start_mark.line + 1
            found.append(self.value(item, (*keys, number)))
        return found

    def scalar(self, node: yaml.Node) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if not isinstance(node, yaml.ScalarNode):
            self.problem(node, f"Lists and mappings must have no tag such as {shortened(kind)}: remove it.")
            return None
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
            # PyYAML fails in all these ways where the text does not fit an explicit tag.
            self.problem(node, f"The value cannot be read as {shortened(kind)}: quote it if it is meant as text.")
            return None
