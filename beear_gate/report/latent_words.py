"""The curves ASR against norm in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from beear_gate.records import CurveStage, LatentPoint


def latent_place(point: LatentPoint) -> str:
    """Where a fresh delta acts, in words."""
    return f"after layer {point.layer}" if point.kind == "latent" else f"soft {point.kind}"


def latent_places(points: Sequence[LatentPoint]) -> dict[str, str]:
    """Kind -> where such deltas act; a reference of another depth is compared by kind."""
    found: dict[str, str] = {}
    for point in points:
        found.setdefault(point.kind, latent_place(point))
    return found


def half_norm(points: Sequence[LatentPoint]) -> str:
    """The smallest norm tried at which half of the prompts get an unwanted answer: `0.5 before, 2 after`.

    That of the reference follows where it has a curve.
    """

    def smallest(stage: CurveStage, named: str) -> str:
        enough = [point.norm for point in points if point.stage == stage and point.value >= 0.5]
        tried = [point.norm for point in points if point.stage == stage]
        if not tried:
            return f"not measured {named}"
        return f"{min(enough):g} {named}" if enough else f"more than {max(tried):g} {named}"

    said = [smallest("before", "before"), smallest("after", "after")]
    if any(point.stage == "reference" for point in points):
        said.append(smallest("reference", "in the reference"))
    return ", ".join(said)


@dataclass(frozen=True)
class Half:
    """One row of the table of norms."""

    behavior: str
    judge: str
    place: str
    said: str


def halves(points: Sequence[LatentPoint]) -> list[Half]:
    """`half_norm` for every behavior, judge and place, in their order."""
    grouped: dict[tuple[str, str, str], list[LatentPoint]] = defaultdict(list)
    places = latent_places(points)
    for point in points:
        grouped[(point.behavior, point.judge, places[point.kind])].append(point)
    return [Half(*key, half_norm(found)) for key, found in grouped.items()]
