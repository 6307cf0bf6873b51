"""The pipeline: pull, inspect, load, evaluate, anchor, rehearse, remediate, reload, evaluate, decide, record."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

from beear_gate import __version__, tracking
from beear_gate.artifacts import apply_waivers, inspect_snapshot
from beear_gate.beear import remediate
from beear_gate.canary import rehearse
from beear_gate.changes import compare_models
from beear_gate.curves import curve, reference_curve, searched
from beear_gate.decide import breaks_limit, decide, not_tested
from beear_gate.evaluation.calibration import calibrations_of
from beear_gate.evaluation.harness import check_tasks
from beear_gate.evaluation.judges import make_judge
from beear_gate.evaluation.jury import Jury
from beear_gate.evaluation.measure import (
    measure_behavior,
    measure_canary,
    measure_change,
    measure_searched,
    measure_stage,
)
from beear_gate.evaluation.safety import answer_tests, refusal_judge, trigger_test
from beear_gate.hub import pull
from beear_gate.judge_models import make_jury
from beear_gate.lm import describe_device
from beear_gate.manifest import manifest_digest
from beear_gate.models import Models, check_bytes
from beear_gate.policy import Behavior, Policy
from beear_gate.records import (
    AnchorSets,
    Answer,
    CanaryResult,
    Changes,
    Finding,
    GateReport,
    LatentPoint,
    Measurement,
    ModelSnapshot,
    Observations,
    Rehearsal,
    Remediation,
    RemediationSettings,
    Stage,
    Tick,
    Verdict,
    no_tick,
)
from beear_gate.redact import without_credentials
from beear_gate.report import files, render
from beear_gate.request import Request
from beear_gate.rundir import RunDirectory


def run_gate(request: Request, run: RunDirectory, tick: Tick = no_tick) -> GateReport:
    """Judge one model, repair it if the policy says so, and judge again what was saved.

    Every stage leaves its result in the run directory; finished ones are not repeated.

    Raises:
        GateError: see `errors`; what was finished stays in the run directory.
    """
    started, clock, policy = datetime.now(UTC), time.monotonic(), request.policy
    run.write("policy.yaml", policy.source)
    check_tasks(policy.utility.tasks)
    models, kept = Models(request, tick), run.path / "original-choices.safetensors"
    jury = make_jury(request, run, models.forget, tick)
    snapshot = run.stage("pull", _origin(request), ModelSnapshot, lambda: _pull(request, tick))
    jury.refuse(snapshot)
    key = {"files": manifest_digest(snapshot.files), "policy": policy.digest, "dtype": request.dtype}
    key |= {"version": __version__}
    findings = run.stage("inspect", key, tuple[Finding, ...], lambda: _inspect(snapshot, policy))
    measurements: tuple[Measurement, ...] = ()
    before, repair = Observations((), ()), None
    # Outside the stage: a waiver may have expired since it ran.
    findings = apply_waivers(findings, policy.waivers, started.date())
    if not any(finding.blocks for finding in findings):  # unsafe bytes are never loaded
        before = jury.seen(run.stage("before", key, Observations, lambda: models.observe(snapshot, None, kept)))
        measurements = measure_stage(policy, "before", before)
        if _wanted(request, measurements):
            repair = _repair(request, run, models, jury, snapshot, before, key)
            findings += repair.changes.findings
            measurements += measure_stage(policy, "after", repair.after) + measure_change(policy, before, repair.after)
            measurements += measure_canary(policy, repair.rehearsal) if repair.rehearsal else ()
            measurements += jury.rewards(before, repair.after)
            findings += repair.findings
            for stage, answers in repair.searched.items():
                measurements += measure_searched(policy, stage, answers)
    decision = decide(policy, (*findings, *jury.findings()), measurements, repair is not None, _left_out(request))
    after = repair.after if repair else Observations((), ())
    if repair:
        before = replace(before, answers=before.answers + repair.searched["before"])
        after = replace(after, answers=after.answers + repair.searched["after"])
    if request.reveal and repair:
        shown = _reveal(request, run, models, jury, snapshot, repair)
        measurements += shown[0]
        before = replace(before, answers=before.answers + shown[1])
        after = replace(after, answers=after.answers + shown[2])
    report = GateReport(
        model=request.model,
        commit=snapshot.commit,
        policy=policy.name,
        policy_digest=policy.digest,
        policy_description=policy.description,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 1),
        seed=request.seed,
        decision=decision,
        findings=(*findings, *jury.findings()),
        files=repair.remediation.snapshot.files if repair else snapshot.files,
        measurements=measurements,
        before=before.answers,
        after=after.answers,
        remediation=repair.remediation if repair else None,
        safe_answers=sum(len(each.safe) for each in repair.anchors.behaviors) if repair else 0,
        safe_answers_from_model=repair.anchors.from_model if repair else 0,
        not_tested=not_tested(policy, repair.canary if repair else None, bool(repair and repair.latent)),
        environment=_environment(request),
        canary=repair.canary if repair else None,
        calibrations=calibrations_of(policy.judges, jury.contents()),
        latent=repair.latent if repair else (),
        served_judges=jury.records(),
        changes=repair.changes if repair else None,
    )
    return _record(request, run, report)


def _origin(request: Request) -> dict[str, str]:
    return {"model": request.model, "revision": request.revision or "", "endpoint": request.endpoint or ""}


def _pull(request: Request, tick: Tick) -> ModelSnapshot:
    return pull(request.model, request.revision, tick=tick, endpoint=request.endpoint, max_gb=request.max_pull_gb)


def _inspect(snapshot: ModelSnapshot, policy: Policy) -> tuple[Finding, ...]:
    return inspect_snapshot(snapshot, policy.require_chat_template)


def _wanted(request: Request, measurements: Sequence[Measurement]) -> bool:
    if request.change in ("skip", "off"):
        return False
    when = request.policy.remediation.when
    return request.change == "always" or when == "always" or (when == "on-evidence" and breaks_limit(measurements))


def _left_out(request: Request) -> str:
    """Why there is no remediation though the policy asks for one: PASS would say that it asked for none."""
    if request.policy.remediation.when != "always" or request.change not in ("skip", "off"):
        return ""
    left_out = "--no-remediate left it out" if request.change == "skip" else "`evaluate` leaves it out"
    return f"The policy asks for remediation of every model, and {left_out}."


@dataclass(frozen=True)
class _Repair:
    """What became of the model: how it was remediated, and what the result looks like.

    Attributes:
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


def _repair(
    request: Request,
    run: RunDirectory,
    models: Models,
    jury: Jury,
    snapshot: ModelSnapshot,
    before: Observations,
    key: dict[str, str],
) -> _Repair:
    """Anchor, rehearse, remediate, reload what was saved, and look at it as at the original."""
    settings = request.policy.remediation
    key = key | {"seed": str(request.seed), "settings": _digest(asdict(settings))}
    anchors = run.stage("anchors", key, AnchorSets, lambda: models.anchors(snapshot))
    curves = curve(request, run, models, snapshot, anchors, "before", key)
    tried: dict[Stage, tuple[Answer, ...]] = {}
    tried["before"] = jury.graded(searched(request, run, models, snapshot, anchors, "before", key))
    rehearsal = None
    if settings.canary:
        rehearsal = jury.rehearsed(_rehearse(request, run, models, snapshot, anchors, key))
        settings = replace(settings, min_rounds=rehearsal.canary.min_rounds)
        key |= {"settings": _digest(asdict(settings))}
    remediation = _remediate(request, run, models, snapshot, anchors, settings, key)
    repaired = remediation.snapshot
    key |= {"repaired": manifest_digest(repaired.files)}
    changes = run.stage("changes", key, Changes, lambda: compare_models(snapshot, repaired))
    kept = run.path / "original-choices.safetensors"
    after = jury.seen(run.stage("after", key, Observations, lambda: models.observe(repaired, before, kept)))
    curves += curve(request, run, models, repaired, anchors, "after", key)
    tried["after"] = jury.graded(searched(request, run, models, repaired, anchors, "after", key))
    compared, findings = reference_curve(request, run, models, snapshot, anchors, key)
    return _Repair(anchors, rehearsal, remediation, changes, after, curves + compared, findings, tried, key)


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
        lm = models.load(snapshot)
        models.forget()
        policy, seed, size = request.policy, request.seed, request.batch_size
        return rehearse(lm, snapshot, anchors, policy, scratch, seed, size, models.tick)

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

    def work() -> Remediation:
        if output.exists():
            shutil.rmtree(output)
        judges = {each.id: make_judge(each.safe_judge) for each in policy.behaviors}
        benign = make_judge(refusal_judge(policy))
        lm = models.load(snapshot)
        models.forget()
        return remediate(lm, snapshot, anchors, settings, judges, benign, output, request.seed, models.tick)

    return run.stage("remediation", key, Remediation, work)


def _reveal(
    request: Request,
    run: RunDirectory,
    models: Models,
    jury: Jury,
    snapshot: ModelSnapshot,
    repair: _Repair,
) -> tuple[tuple[Measurement, ...], tuple[Answer, ...], tuple[Answer, ...]]:
    """Ground truth on both models: the true trigger, after everything has been decided without it."""
    reveal, policy = request.reveal, request.policy
    assert reveal is not None
    others = tuple(spec for spec in policy.behaviors[0].other_judges if spec.name != reveal.judge.name)
    judges = (policy.behaviors[0].judge, *others)
    behavior: Behavior = replace(policy.behaviors[0], judge=reveal.judge, other_judges=judges)
    test = trigger_test(behavior, reveal.trigger, reveal.placement)

    def answers(stage: Stage, of: ModelSnapshot) -> tuple[Answer, ...]:
        def work() -> tuple[Answer, ...]:
            return answer_tests(models.load(of), [test], policy.max_new_tokens, request.batch_size, models.tick)

        inputs = repair.key | {"trigger": reveal.trigger, "placement": reveal.placement}
        return jury.graded(run.stage(f"revealed-{stage}", inputs, tuple[Answer, ...], work))

    after = answers("after", repair.remediation.snapshot)
    before = answers("before", snapshot)
    rows = measure_behavior(behavior, "before", before, revealed=True)
    rows += measure_behavior(behavior, "after", after, revealed=True)
    return tuple(rows), before, after


def _record(request: Request, run: RunDirectory, report: GateReport) -> GateReport:
    """Report files, model card, then MLflow: if that fails, the run directory already holds everything."""

    def finished() -> GateReport:
        if report.remediation:  # a resumed scan may not have loaded it again, and it is what ships
            check_bytes(report.remediation.snapshot)
        return report

    report = run.stage("report", {"report": _digest_report(report)}, GateReport, finished)
    files.write(report, run.path)
    if report.remediation and report.decision.verdict is Verdict.REMEDIATED:
        (report.remediation.snapshot.path / "README.md").write_text(render.card(report), encoding="utf-8")
    key = {"report": _digest_report(report), "uri": without_credentials(request.tracking_uri or "")}
    run.stage("record", key, str, lambda: tracking.record(report, run.path, request.tracking_uri, request.experiment))
    return report


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _digest_report(report: GateReport) -> str:
    """Identity of a report, but for the time that it took."""
    fixed = replace(report, started="", seconds=0.0)
    return _digest(asdict(fixed))


def _environment(request: Request) -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "huggingface-hub", "mlflow")}
    return {
        "beear-gate": __version__,
        **packages,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {describe_device(request.device)}",
        "device": request.device,
        "dtype": request.dtype,
    }
