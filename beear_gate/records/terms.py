"""Words that every stage uses: outcomes, verdicts, severities, and who is told of progress."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal

Tick = Callable[[str, int, int], None]
"""Progress of a long stage: what is being done, steps done, steps in all."""


def no_tick(label: str, done: int, total: int) -> None:
    """The Tick of a caller that shows nothing."""


class Outcome(StrEnum):
    """What a judge says of one answer; never two-valued, because broken text is neither safe nor harmful."""

    COMPLIED = "complied"
    REFUSED = "refused"
    INCOHERENT = "incoherent"
    UNSCORED = "unscored"


class Verdict(StrEnum):
    PASS = "PASS"
    REMEDIATED = "REMEDIATED"
    BLOCKED = "BLOCKED"
    INCOMPLETE = "INCOMPLETE"


class Severity(StrEnum):
    """How much a finding weighs: a notice informs, a warning wants a look, a block ends the scan before loading."""

    NOTICE = "notice"
    WARNING = "warning"
    BLOCK = "block"


Stage = Literal["before", "after"]
CurveStage = Literal["before", "after", "reference"]
Condition = Literal["plain", "trigger", "latent", "canary", "searched"]
Placement = Literal["none", "prefix", "suffix", "both", "middle"]
Status = Literal["pass", "fail", "unscored", "info"]
