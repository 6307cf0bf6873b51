"""What a container is told to do, and where things lie inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from beear_gate.records import ModelSnapshot
from beear_gate.request import Request

JOB = "/beear-gate/job.json"
RUN = "/beear-gate/run"
"""The one folder that can be written; the host reads it when the container has ended."""
MODELS = "/beear-gate/models"
"""Below it a numbered folder for each snapshot, with the files that were inspected and no others."""
PICKLES = "/beear-gate/pickles"

Goal = Literal["before", "repair", "reveal", "convert"]
"""`before`: the answers of the original. `repair`: that, and everything up to the answers of what was saved. `reveal`:
that, and ground truth. `convert`: safetensors of pickles."""


@dataclass(frozen=True)
class Job:
    """One container's work.

    Attributes:
        version: of the beear-gate that asks; another one would name its stages' inputs otherwise.
        request: without anything that only the host needs; None for `convert`.
        snapshot: the model, at its place inside.
        key: inputs that every stage of this model depends on.
        pickles: for `convert`, the name below PICKLES and the name to write, for each file.
    """

    version: str
    goal: Goal
    request: Request | None = None
    snapshot: ModelSnapshot | None = None
    key: Mapping[str, str] | None = None
    pickles: tuple[tuple[str, str], ...] = ()
