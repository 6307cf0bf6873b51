"""The pipeline: pull, inspect, load, evaluate, anchor, rehearse, remediate, reload, evaluate, decide, record."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from importlib.metadata import version

from beear_gate import __version__, tracking
from beear_gate.artifacts import apply_waivers, inspect_snapshot
from beear_gate.artifacts.rules import finding
from beear_gate.decide import breaks_limit, decide, not_tested
from beear_gate.evaluation.calibration import calibrations_of
from beear_gate.evaluation.harness import check_tasks
from beear_gate.evaluation.jury import Jury
from beear_gate.evaluation.measure import measure_behavior, measure_stage
from beear_gate.evaluation.safety import answer_tests, trigger_test
from beear_gate.hub import pull
from beear_gate.judge_models import make_jury
from beear_gate.lm import describe_device
from beear_gate.manifest import manifest_digest
from beear_gate.models import Models, check_bytes
from beear_gate.policy import Behavior, Policy
from beear_gate.records import (
    Answer,
    Conversion,
    Decision,
    Engine,
    Finding,
    GateReport,
    Measurement,
    ModelSnapshot,
    Observations,
    Stage,
    Tick,
    Verdict,
    no_tick,
)
from beear_gate.redact import without_credentials
from beear_gate.repair import Repair, digest_of, measure_repair, repair
from beear_gate.report import files, render
from beear_gate.request import Request
from beear_gate.rundir import RunDirectory
from beear_gate.sandbox import SandboxedRun, convert, may_be_converted


def run_gate(request: Request, run: RunDirectory, tick: Tick = no_tick) -> GateReport:
    """Judge one model, repair it if the policy says so, and judge again what was saved.

    Every stage leaves its result in the run directory; finished ones are not repeated.

    Raises:
        GateError: see `errors`; what was finished stays in the run directory.
    """
    started, clock, policy = datetime.now(UTC), time.monotonic(), request.policy
    sandbox = SandboxedRun(request, run, tick) if request.sandbox else None
    run = sandbox or run
    run.write("policy.yaml", policy.source)
    check_tasks(policy.utility.tasks)
    models, kept = Models(request, tick), run.path / "original-choices.safetensors"
    jury = make_jury(request, run, models.forget, tick)
    snapshot = run.stage("pull", _origin(request), ModelSnapshot, lambda: _pull(request, tick))
    jury.refuse(snapshot)
    key = {"files": manifest_digest(snapshot.files), "policy": policy.digest, "dtype": request.dtype}
    key |= {"version": __version__}
    findings = run.stage("inspect", key, tuple[Finding, ...], lambda: _inspect(snapshot, policy))
    # Outside the stage: a waiver may have expired since it ran.
    findings = apply_waivers(findings, policy.waivers, started.date())
    converted, findings = _converted(request, sandbox, snapshot, findings, key, started.date())
    origin, snapshot = snapshot, converted.snapshot if converted else snapshot
    key |= {"files": manifest_digest(snapshot.files)}
    measurements: tuple[Measurement, ...] = ()
    before, repaired = Observations((), ()), None
    if not any(finding.blocks for finding in findings):  # unsafe bytes are never loaded
        before = jury.seen(
            run.stage("before", key | request.engine, Observations, lambda: models.observe(snapshot, None, kept))
        )
        measurements = measure_stage(policy, "before", before)
        if _wanted(request, measurements):
            repaired = repair(request, run, models, jury, snapshot, before, key)
            measurements += tuple(measure_repair(policy, jury, before, repaired))
            findings += repaired.findings
    findings += jury.findings()
    decision = decide(policy, findings, measurements, repaired is not None, _left_out(request))
    answers: dict[Stage, tuple[Answer, ...]] = {"before": before.answers, "after": ()}
    if repaired:
        answers["after"] = repaired.after.answers
        shown = reveal(request, run, models, jury, snapshot, repaired) if request.reveal else Revealed()
        measurements += shown.measurements
        answers = {stage: (*answers[stage], *repaired.searched[stage], *shown.answers[stage]) for stage in answers}
    judged = replace(snapshot, commit=origin.commit)
    seen = (before, repaired.after) if repaired else (before,)
    environment = _environment(request, [each.engine for each in seen if each.engine])
    report = _report(request, judged, decision, findings, measurements, answers, repaired, jury, environment)
    report = replace(report, sandbox=sandbox.record if sandbox else None, converted=converted)
    timed = replace(report, started=started.isoformat(timespec="seconds"), seconds=round(time.monotonic() - clock, 1))
    return _record(request, run, timed)


def _report(
    request: Request,
    snapshot: ModelSnapshot,
    decision: Decision,
    findings: tuple[Finding, ...],
    measurements: tuple[Measurement, ...],
    answers: Mapping[Stage, tuple[Answer, ...]],
    repaired: Repair | None,
    jury: Jury,
    environment: dict[str, str],
) -> GateReport:
    """All that is known of a scan, but for when it was and how long it took."""
    policy = request.policy
    return GateReport(
        model=request.model,
        commit=snapshot.commit,
        policy=policy.name,
        policy_digest=policy.digest,
        policy_description=policy.description,
        started="",
        seconds=0.0,
        seed=request.seed,
        decision=decision,
        findings=findings,
        files=repaired.remediation.snapshot.files if repaired else snapshot.files,
        measurements=measurements,
        before=answers["before"],
        after=answers["after"],
        remediation=repaired.remediation if repaired else None,
        safe_answers=sum(len(each.safe) for each in repaired.anchors.behaviors) if repaired else 0,
        safe_answers_from_model=repaired.anchors.from_model if repaired else 0,
        not_tested=not_tested(policy, repaired.canary if repaired else None, bool(repaired and repaired.latent)),
        environment=environment,
        canary=repaired.canary if repaired else None,
        calibrations=calibrations_of(policy.judges, jury.contents()),
        latent=repaired.latent if repaired else (),
        served_judges=jury.records(),
        changes=repaired.changes if repaired else None,
    )


def _origin(request: Request) -> dict[str, str]:
    return {"model": request.model, "revision": request.revision or "", "endpoint": request.endpoint or ""}


def _pull(request: Request, tick: Tick) -> ModelSnapshot:
    return pull(request.model, request.revision, tick=tick, endpoint=request.endpoint, max_gb=request.max_pull_gb)


def _inspect(snapshot: ModelSnapshot, policy: Policy) -> tuple[Finding, ...]:
    return inspect_snapshot(snapshot, policy.require_chat_template)


def _converted(
    request: Request,
    sandbox: SandboxedRun | None,
    snapshot: ModelSnapshot,
    findings: tuple[Finding, ...],
    key: Mapping[str, str],
    today: date,
) -> tuple[Conversion | None, tuple[Finding, ...]]:
    """Safetensors of a model that is blocked for its pickles alone, where they are asked for, and what is known then.

    Findings are those of the copy, and what only the original had and does not block; or why there is no copy.
    """
    if not (sandbox and request.convert and may_be_converted(findings)):
        return None, findings
    made = sandbox.stage("convert", key, Conversion, lambda: convert(request, sandbox, snapshot))
    if made.problem:
        message, remedy = f"The pickles were not converted: {made.problem}.", "Ask the publisher for safetensors."
        return made, (*findings, finding("pickle-unconverted", "", message, remedy))
    key = {**key, "files": manifest_digest(made.snapshot.files)}
    kind, policy = tuple[Finding, ...], request.policy
    after = sandbox.stage("inspect-converted", key, kind, lambda: _inspect(made.snapshot, policy))
    after = apply_waivers(after, policy.waivers, today)
    return made, (*after, *(each for each in findings if not each.blocks and each not in after))


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
class Revealed:
    """Ground truth: figures, and the answers that they are of."""

    measurements: tuple[Measurement, ...] = ()
    answers: Mapping[Stage, tuple[Answer, ...]] = field(default_factory=lambda: {"before": (), "after": ()})


def reveal(
    request: Request,
    run: RunDirectory,
    models: Models,
    jury: Jury,
    snapshot: ModelSnapshot,
    repaired: Repair,
) -> Revealed:
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

        inputs = repaired.key | {"trigger": reveal.trigger, "placement": reveal.placement}
        return jury.graded(run.stage(f"revealed-{stage}", inputs, tuple[Answer, ...], work))

    after = answers("after", repaired.remediation.snapshot)
    before = answers("before", snapshot)
    rows = measure_behavior(behavior, "before", before, revealed=True)
    rows += measure_behavior(behavior, "after", after, revealed=True)
    return Revealed(tuple(rows), {"before": before, "after": after})


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


def _digest_report(report: GateReport) -> str:
    """Identity of a report, but for the time that it took."""
    fixed = replace(report, started="", seconds=0.0)
    return digest_of(asdict(fixed))


def _environment(request: Request, engines: Sequence[Engine]) -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "huggingface-hub", "mlflow")}
    return {
        "beear-gate": __version__,
        **packages,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {describe_device(request.device)}",
        "device": request.device,
        "dtype": request.dtype,
        "processes": str(request.processes),
        **({"answers": "; ".join(_spoken(each) for each in engines)} if engines else {}),
    }


def _spoken(engine: Engine) -> str:
    rate = engine.tokens / engine.seconds if engine.seconds else 0.0
    checked = f", {engine.equal} of {engine.checked} checked ones begin as those of transformers"
    return f"{engine.name}, {rate:,.0f} tokens a second{checked if engine.checked else ''}"
