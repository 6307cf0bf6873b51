"""Figures with their bounds and limits."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from beear_gate.records.terms import Condition, CurveStage, Placement, Stage, Status


@dataclass(frozen=True)
class LatentPoint:
    """How often a fresh universal delta of bounded size elicits one behavior: a point of the curve ASR against norm.

    Attributes:
        stage: `reference` is another model, which the policy names to compare with.
        kind: `latent` acts after a decoder layer that remediation did not use; `prefix` and `suffix` are soft triggers.
        layer: of `latent`; None for soft triggers, which act on embeddings.
        norm: bound of delta's RMS a token, in units of the RMS of what it is added to.
        loss: L(F(x, delta), y_h) where the fit ended, in nats a token.
        hits, n: clusters of gate prompts answered as unwanted by this judge, and all of them.
        low, high: 95 % interval of their share (Wilson).
    """

    stage: CurveStage
    behavior: str
    judge: str
    kind: Literal["latent", "prefix", "suffix"]
    layer: int | None
    norm: float
    loss: float
    hits: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.hits / self.n


@dataclass(frozen=True)
class Measurement:
    """One figure with its interval; the flat row of `evidence.json` (docs/design.md section 7).

    Attributes:
        value: point estimate; None where nothing could be measured.
        low, high: interval at `confidence`; one-sided bounds for limits and margins.
        n, hits, unscored: clusters of prompts, those counted, those without a score.
        limit: what `high` may not exceed; None for information.
        revealed: ground truth measured after the decision (demo, bench); never part of the verdict.
    """

    stage: Stage
    behavior: str
    metric: str
    judge: str
    condition: Condition
    trigger: str
    placement: Placement
    value: float | None
    low: float | None
    high: float | None
    confidence: float
    n: int
    hits: int | None
    unscored: int
    limit: float | None
    status: Status
    revealed: bool = False

    @property
    def excess(self) -> float:
        """How much of its limit the bound takes up: above 1 beyond it, infinite where it is not known, 0 without one.

        A ratio counts from 1, which is no change.
        """
        if self.limit is None:
            return 0.0
        none = 1.0 if self.metric.endswith("_ratio") else 0.0
        if self.high is None or not isfinite(self.high) or self.limit <= none:
            return inf
        return (self.high - none) / (self.limit - none)


def worst_first(row: Measurement) -> tuple[int, float]:
    """Sorts broken rules before those without evidence before those that are met, each by how much of its limit it
    takes up."""
    order: tuple[Status, ...] = ("fail", "unscored", "pass", "info")
    return order.index(row.status), -row.excess
