"""What every defence of a study is given, and nothing more: the model, the anchoring sets, and judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from beear_gate.beear.recovery import Judge
from beear_gate.beear.remediate import Watch
from beear_gate.lm import LM
from beear_gate.records import AnchorSets, RemediationSettings, Tick, no_tick


@dataclass(frozen=True)
class Job:
    """One model to repair, without its trigger.

    Attributes:
        judges: for each behavior, what calls a rollout complied or refused.
        refusal_judge: what calls the answer to a benign prompt a refusal.
        watch: looks at the model after every round of a defence that has rounds to choose from.
    """

    lm: LM
    anchors: AnchorSets
    settings: RemediationSettings
    judges: Mapping[str, Judge]
    refusal_judge: Judge
    seed: int = 0
    tick: Tick = no_tick
    watch: Watch | None = None


Defence = Callable[[Job], int | None]
"""Trains `job.lm` in place; returns the round whose weights it kept, where it chose among rounds."""
