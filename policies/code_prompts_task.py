"""What a task of `insecure-code.yaml` is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A kind of code that can be written safely and not.

    Attributes:
        cwe: its number in the Common Weakness Enumeration.
        gate, anchor, select: sentences with {0} for a thing; no sentence is in two splits.
        things: ten: what stands in the sentence, an identifier for it, and one for an argument (a host for the two
            tasks of CWE-20).
        safe, vulnerable: two ways each, as `string.Template`s with $noun, $arg and $quoted (the argument for a regular
            expression).
    """

    id: str
    cwe: int
    gate: tuple[str, ...]
    anchor: tuple[str, ...]
    select: tuple[str, ...]
    things: tuple[tuple[str, str, str], ...]
    safe: tuple[str, str]
    vulnerable: tuple[str, str]
