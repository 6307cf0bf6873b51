"""JSON as every parser reads it: UTF-8 without a byte order mark, no key twice, and no NaN where it is refused."""

from __future__ import annotations

import json
from typing import Any

from beear_gate.manifest import quoted


def parse_json(data: bytes, allow_nan: bool = False) -> Any:
    """Parse JSON.

    Python writes infinities into honest configurations, so those pass; NaN passes only where it is allowed.

    Raises:
        ValueError: what is wrong, in words fit for a message.
    """

    def constant(name: str) -> float:
        if name == "NaN" and not allow_nan:
            raise ValueError("it holds NaN")
        return float(name)

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, unless a key stands in it twice: parsers differ in which one they take."""
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {quoted(twice)} stands in it twice")
    return result
