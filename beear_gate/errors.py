"""Every error that beear-gate raises on purpose.

    GateError                     exit  what it means
    ├── UsageError                  2   the call cannot mean what it says: option, path, model name
    ├── PolicyError                 2   a policy that cannot be applied; carries every problem at once
    ├── IncompleteError             3   the gate could not look, so there is no verdict
    │   ├── HubUnavailable          3   the hub did not answer, or refused
    │   ├── UnsupportedModel        3   a model that this version cannot load or train
    │   ├── OutOfMemory             3   not even a batch of one fits
    │   └── RecordingFailed         3   the verdict stands in the run directory, but MLflow did not take it
    └── VerificationFailed          4   a model is not what a signed verdict vouches for, or the verdict does not hold

A message is one sentence that says what happened and where; `remedy` is one that says what to do. Exit 1 is no error:
it is the verdict BLOCKED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class GateError(Exception):
    """Something the user can act on.

    Args:
        message: what happened, naming the file, option or address.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageError(GateError):
    """The call cannot mean what it says."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a policy, at a place that an editor can open."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class PolicyError(GateError):
    """A policy that cannot be applied; `problems` holds every reason, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"The policy has {count}:\n" + "\n".join(f"  {problem}" for problem in self.problems))


class IncompleteError(GateError):
    """The gate could not look; no verdict can be given."""

    exit_code = 3


class HubUnavailable(IncompleteError):
    """The hub did not answer, or refused the request."""


class UnsupportedModel(IncompleteError):
    """A model that this version cannot load, hook or train."""


class OutOfMemory(IncompleteError):
    """Not even the smallest batch fits into memory."""


class RecordingFailed(IncompleteError):
    """The run directory holds everything, but MLflow did not take it."""


class VerificationFailed(GateError):
    """`verify` looked, and the verdict does not hold for these bytes, this signer or this policy."""

    exit_code = 4
