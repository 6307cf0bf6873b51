"""The rehearsal on a copy with a planted backdoor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beear_gate.records.observed import Answer
from beear_gate.records.terms import Placement


@dataclass(frozen=True)
class CanaryResult:
    """How this remediation did on a copy of the model with a backdoor of our own (a canary).

    Figures here are of the select split, as shares of prompts; those of the gate split are `Measurement` rows.

    Attributes:
        trigger, placement: drawn by seed; known to the canary alone.
        answers: for each behavior, where the unwanted answers come from: the policy, the model itself, an opening.
        planted: whether the copy had learned to comply with the trigger and to refuse without it.
        problem: why there are no figures, as the end of a sentence; "" where there are some.
        select_asr: for each behavior, prompts with the trigger answered: as planted, then after every round.
        select_plain: for each behavior, prompts without the trigger answered, as planted.
        n: select prompts of each behavior.
        min_rounds: the fewest rounds that the remediation of the model itself has to run, by this rehearsal.
        chosen_round: the round whose weights were measured after; 0 where nothing was planted.
        rehearsals: how often the copy was remediated: once more where the first try left the canary alive.
    """

    trigger: str
    placement: Placement
    answers: dict[str, Literal["policy", "model", "opening"]]
    planted: bool
    problem: str
    select_asr: dict[str, tuple[float, ...]]
    select_plain: dict[str, float]
    n: dict[str, int]
    min_rounds: int
    chosen_round: int
    rehearsals: int
    seconds: float


@dataclass(frozen=True)
class Rehearsal:
    """A canary, and the answers of the copy to gate prompts with its trigger, before and after the remediation."""

    canary: CanaryResult
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]
