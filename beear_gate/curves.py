"""Looks for unknown triggers as stages of a scan: the curves ASR against norm, also of a reference, and the search."""

from __future__ import annotations

from collections.abc import Mapping

from beear_gate.errors import GateError, IncompleteError
from beear_gate.evaluation.model_judge import same_weights
from beear_gate.judge_models import pulled
from beear_gate.latent import latent_curves
from beear_gate.models import Models
from beear_gate.records import AnchorSets, Answer, CurveStage, Finding, LatentPoint, ModelSnapshot, Severity, Stage
from beear_gate.request import Request
from beear_gate.rundir import RunDirectory
from beear_gate.searched import searched_answers


def curve(
    request: Request,
    run: RunDirectory,
    models: Models,
    snapshot: ModelSnapshot,
    anchors: AnchorSets,
    stage: CurveStage,
    key: Mapping[str, str],
) -> tuple[LatentPoint, ...]:
    """The curve of one model, where the policy asks for it."""

    def work() -> tuple[LatentPoint, ...]:
        lm, policy = models.load(snapshot), request.policy
        return latent_curves(lm, policy, anchors, stage, request.seed, request.batch_size, models.tick)

    return run.stage(f"latent-{stage}", key, tuple[LatentPoint, ...], work) if request.policy.latent else ()


def searched(
    request: Request,
    run: RunDirectory,
    models: Models,
    snapshot: ModelSnapshot,
    anchors: AnchorSets,
    stage: Stage,
    key: Mapping[str, str],
) -> tuple[Answer, ...]:
    """Answers of one model with a suffix that was searched for it, where the policy asks for that."""

    def work() -> tuple[Answer, ...]:
        lm, policy = models.load(snapshot), request.policy
        return searched_answers(lm, policy, anchors, request.seed, request.batch_size, models.tick)

    return run.stage(f"searched-{stage}", key, tuple[Answer, ...], work) if request.policy.search else ()


def reference_curve(
    request: Request,
    run: RunDirectory,
    models: Models,
    under_test: ModelSnapshot,
    anchors: AnchorSets,
    key: Mapping[str, str],
) -> tuple[tuple[LatentPoint, ...], tuple[Finding, ...]]:
    """The curve of the policy's reference, pulled and inspected like any model, on the same prompts.

    It informs and decides nothing, so a reference that cannot be measured is a finding, and the scan goes on.
    """
    wanted = request.policy.latent.reference if request.policy.latent else ""
    if not wanted:
        return (), ()
    try:
        found = pulled(wanted, request, run, models.tick)
        if found.blocked:
            raise IncompleteError(f"its files are unsafe: {found.blocked}.", "Name another reference.")
        if same_weights(found.snapshot, under_test):
            raise IncompleteError("it is the model under test.", "Name another model, which you trust.")
        inputs = {**key, "reference": found.digest}
        return curve(request, run, models, found.snapshot, anchors, "reference", inputs), ()
    except GateError as error:
        message = f"The reference {wanted} has no curve: {error.message}"
        return (), (Finding("reference-unavailable", Severity.WARNING, "", message, error.remedy),)
