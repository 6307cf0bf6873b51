"""What becomes of a model that needs a change: anchor, rehearse, remediate, reload what was saved, and look at it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from beear_gate.beear import remediate
from beear_gate.canary import rehearse
from beear_gate.changes import compare_models
from beear_gate.curves import curve, reference_curve, searched
from beear_gate.errors import IncompleteError
from beear_gate.evaluation.judges import make_judge
from beear_gate.evaluation.jury import Jury
from beear_gate.evaluation.measure import measure_canary, measure_change, measure_searched, measure_stage
from beear_gate.evaluation.safety import refusal_judge
from beear_gate.launch import Job
from beear_gate.manifest import manifest_digest
from beear_gate.models import Models
from beear_gate.policy import Policy
from beear_gate.records import (
    AnchorSets,
    Answer,
    CanaryResult,
    Changes,
    Finding,
    LatentPoint,
    Measurement,
    ModelSnapshot,
    Observations,
    Rehearsal,
    Remediation,
    RemediationSettings,
    Stage,
)
from beear_gate.request import Request
from beear_gate.rundir import TOGETHER, RunDirectory


@dataclass(frozen=True)
class Repair:
    """What became of the model: how it was remediated, and what the result looks like.

    Attributes:
        changes: what differs from the original; its findings are among `findings`.
        searched: answers of each model with a suffix that was searched for it.
        key: inputs of any further stage that depends on the remediated model.
    """

    anchors: AnchorSets
    rehearsal: Rehearsal | None
    remediation: Remediation
    changes: Changes
    after: Observations
    latent: tuple[LatentPoint, ...]
    findings: tuple[Finding, ...]
    searched: dict[Stage, tuple[Answer, ...]]
    key: dict[str, str]

    @property
    def canary(self) -> CanaryResult | None:
        return self.rehearsal.canary if self.rehearsal else None


def repair(
    request: Request,
    run: RunDirectory,
    models: Models,
    jury: Jury,
    snapshot: ModelSnapshot,
    before: Observations,
    key: dict[str, str],
) -> Repair:
    """Every stage from the anchoring sets to the answers of what was saved.

    Args:
        before: what was seen of the original.
        key: inputs that every stage of this model depends on.

    Raises:
        GateError: see `errors`.
    """
    settings = request.policy.remediation
    key = key | {"seed": str(request.seed), "settings": digest_of(asdict(settings))}
    anchors = run.stage("anchors", key, AnchorSets, lambda: models.anchors(snapshot))
    curves = curve(request, run, models, snapshot, anchors, "before", key)
    tried: dict[Stage, tuple[Answer, ...]] = {}
    tried["before"] = jury.graded(searched(request, run, models, snapshot, anchors, "before", key))
    rehearsal = None
    if settings.canary:
        rehearsal = jury.rehearsed(_rehearse(request, run, models, snapshot, anchors, key))
        settings = replace(settings, min_rounds=rehearsal.canary.min_rounds)
        key |= {"settings": digest_of(asdict(settings))}
    remediation = _remediate(request, run, models, snapshot, anchors, settings, key)
    repaired = remediation.snapshot
    key |= {"repaired": manifest_digest(repaired.files)}
    changes = run.stage("changes", key, Changes, lambda: compare_models(snapshot, repaired))
    kept = run.path / "original-choices.safetensors"
    inputs = key | request.engine
    after = jury.seen(run.stage("after", inputs, Observations, lambda: models.observe(repaired, before, kept)))
    _refuse_two_engines(before, after)
    curves += curve(request, run, models, repaired, anchors, "after", key)
    tried["after"] = jury.graded(searched(request, run, models, repaired, anchors, "after", key))
    compared, findings = reference_curve(request, run, models, snapshot, anchors, key)
    findings = (*changes.findings, *findings)
    return Repair(anchors, rehearsal, remediation, changes, after, curves + compared, findings, tried, key)


def _refuse_two_engines(before: Observations, after: Observations) -> None:
    """What differs between two engines would pass for an effect of the remediation."""
    names = [each.engine.name for each in (before, after) if each.engine]
    if len(set(names)) > 1:
        raise IncompleteError(
            f"The original answered through {names[0]} and the remediated model through {names[1]}.",
            "Scan again, without --resume.",
        )


def measure_repair(policy: Policy, jury: Jury, before: Observations, repaired: Repair) -> Iterator[Measurement]:
    """Figures of the remediated model, of the change, and of what was tried without a known trigger."""
    yield from measure_stage(policy, "after", repaired.after)
    yield from measure_change(policy, before, repaired.after)
    if repaired.rehearsal:
        yield from measure_canary(policy, repaired.rehearsal)
    yield from jury.rewards(before, repaired.after)
    for stage, answers in repaired.searched.items():
        yield from measure_searched(policy, stage, answers)


def _rehearse(
    request: Request,
    run: RunDirectory,
    models: Models,
    snapshot: ModelSnapshot,
    anchors: AnchorSets,
    key: dict[str, str],
) -> Rehearsal:
    scratch = run.path / "canary-model"

    def work() -> Rehearsal:
        if request.processes > 1:
            job = _job("canary", request, snapshot, anchors, request.policy.remediation, scratch)
            return models.together(job, run.path / TOGETHER, Rehearsal)
        lm = models.load(snapshot)
        models.forget()
        policy, seed, size = request.policy, request.seed, request.batch_size
        return rehearse(lm, snapshot, anchors, policy, scratch, seed, size, models.tick, request.memory)

    return run.stage("canary", key, Rehearsal, work)


def _remediate(
    request: Request,
    run: RunDirectory,
    models: Models,
    snapshot: ModelSnapshot,
    anchors: AnchorSets,
    settings: RemediationSettings,
    key: dict[str, str],
) -> Remediation:
    policy = request.policy
    output = request.output or run.path / "model"
    rounds = run.path / f"rounds-{digest_of(key)[:12]}"

    def work() -> Remediation:
        if output.exists():
            shutil.rmtree(output)
        if request.processes > 1:
            kept = rounds if request.keeps_rounds else None
            job = _job("remediation", request, snapshot, anchors, settings, output, kept)
            return models.together(job, run.path / TOGETHER, Remediation)
        judges = {each.id: make_judge(each.safe_judge) for each in policy.behaviors}
        benign = make_judge(refusal_judge(policy))
        lm = models.load(snapshot)
        models.forget()
        return remediate(
            lm, snapshot, anchors, settings, judges, benign, output, request.seed, models.tick, memory=request.memory
        )

    done = run.stage("remediation", key, Remediation, work)
    shutil.rmtree(rounds, ignore_errors=True)
    return done


def _job(
    work: Literal["remediation", "canary"],
    request: Request,
    snapshot: ModelSnapshot,
    anchors: AnchorSets,
    settings: RemediationSettings,
    output: Path,
    kept: Path | None = None,
) -> Job:
    """What several processes are handed."""
    return Job(
        work=work,
        processes=request.processes,
        policy=request.policy,
        snapshot=snapshot,
        anchors=anchors,
        settings=settings,
        output=output.absolute(),
        kept=kept.absolute() if kept else None,
        device=request.device,
        dtype=request.dtype,
        seed=request.seed,
        batch_size=request.batch_size,
        memory=request.memory,
    )


def digest_of(value: object) -> str:
    """Identity of inputs of a stage."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
