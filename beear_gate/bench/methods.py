"""The defences that studies compare: BEEAR in both modes, and the baselines, by name."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from beear_gate.beear import remediate
from beear_gate.bench.baselines import benign_tuning, random_delta, safety_tuning
from beear_gate.bench.crow import crow
from beear_gate.bench.gcg import gcg
from beear_gate.bench.job import Defence, Job
from beear_gate.bench.targeted_lat import targeted_lat
from beear_gate.hub import pull
from beear_gate.records import Remediation


def beear(job: Job, mode: Literal["deep", "paper"]) -> Remediation:
    """BEEAR as the gate runs it; the saved copy is dropped, `job.lm` keeps the chosen weights."""
    with tempfile.TemporaryDirectory() as scratch:
        return remediate(
            job.lm,
            pull(str(job.lm.path), None),
            job.anchors,
            replace(job.settings, mode=mode),
            job.judges,
            job.refusal_judge,
            Path(scratch) / "model",
            job.seed,
            job.tick,
            job.watch,
        )


def deep(job: Job) -> int:
    return beear(job, "deep").chosen_round


def paper(job: Job) -> int:
    return beear(job, "paper").chosen_round


METHODS: dict[str, Defence] = {
    "deep": deep,
    "paper": paper,
    "benign-tuning": benign_tuning,
    "safety-tuning": safety_tuning,
    "random-delta": random_delta,
    "crow": crow,
    "targeted-lat": targeted_lat,
    "gcg-3": partial(gcg, n_tokens=3),
    "gcg-12": partial(gcg, n_tokens=12),
}
