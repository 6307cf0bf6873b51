"""What a container says: progress and errors, one JSON object a line. All of it may come from hostile code."""

from __future__ import annotations

import json
from collections.abc import Iterable

from beear_gate import errors
from beear_gate.errors import GateError, IncompleteError
from beear_gate.records import Tick
from beear_gate.redact import redacted
from beear_gate.report.text import one_line

_LONGEST = 2**16  # bytes of a line, and of what is kept of stderr
_KNOWN = ("UsageError", "IncompleteError", "UnsupportedModel", "OutOfMemory")
_MOST = 2**53


class Output:
    """Reads both streams of a container as they come."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick
        self._line, self._stderr = b"", b""
        self._raised: GateError | None = None

    def read(self, stream: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Hand on progress until the streams end, from a thread of its own."""
        for out, err in stream:
            self._stderr = (self._stderr + (err or b""))[-_LONGEST:]
            *lines, rest = (self._line + (out or b"")).split(b"\n")
            self._line = rest if len(rest) <= _LONGEST else b""
            for line in lines:
                self._take(line)

    def error(self, code: int) -> GateError:
        """What the module inside raised; where it died without a word, the end of what was on its stderr."""
        if self._raised:
            return self._raised
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        last = f": {_inert(lines[-1], 300).rstrip('.')}" if lines else ""
        return IncompleteError(
            f"The sandbox ended with exit code {code}{last}.",
            "Check that the image is of this version of beear-gate; what was finished stays for --resume RUN_DIR.",
        )

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):  # a library that prints
            return
        match said:
            case {"tick": [str(label), int(done), int(total)]} if 0 <= done <= _MOST and 0 <= total <= _MOST:
                self._tick(_inert(label, 200), done, total)
            case {"error": [str(kind), str(message), str(remedy)]}:
                raised = getattr(errors, kind) if kind in _KNOWN else IncompleteError
                self._raised = raised(_inert(message, 2000), _inert(remedy, 2000))


def _inert(text: str, limit: int) -> str:
    return one_line(redacted(text), limit)
