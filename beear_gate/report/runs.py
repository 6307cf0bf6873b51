"""A scan as runs of an experiment tracker: names, tags, parameters and metrics, without any tracker's client."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from beear_gate.records import CanaryResult, GateReport, LatentPoint, Measurement, Remediation, ServedJudge
from beear_gate.report.text import one_line, visible
from beear_gate.report.words import short

Metrics = Mapping[str, Iterable[tuple[int, float]]]
"""Name -> (step, value); what was measured once is at step 0."""

_ROUND = {
    "round.select.asr": "select_asr",
    "round.select.refused": "select_refused",
    "round.select.nll_ratio": "select_nll_ratio",
    "round.select.over_refusal": "select_over_refusal",
    "round.seconds": "seconds",
}


@dataclass(frozen=True)
class StageRun:
    """What the nested run of one stage shows."""

    name: str
    metrics: Metrics
    params: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def name(report: GateReport) -> str:
    """`scan org/model@0123456789ab`."""
    return f"scan {one_line(report.model, 150)}@{short(report.commit)}"


def tags(report: GateReport) -> dict[str, str]:
    """What one searches for: model, commit, policy, verdict."""
    source = "folder" if report.commit.startswith("sha256:") else "hub.repo_id"
    found = {
        source: report.model,
        "commit": report.commit,
        "policy.name": report.policy,
        "policy.sha256": report.policy_digest.removeprefix("sha256:"),
        "verdict": report.decision.verdict.value,
    }
    return {key: one_line(value, 1000) for key, value in found.items()}


def params(report: GateReport) -> dict[str, object]:
    """Seed, policy, settings of the remediation and the environment."""
    settings = asdict(report.remediation.settings) if report.remediation is not None else {}
    remediation = {f"remediation.{key}": value for key, value in settings.items() if value is not None}
    environment = {f"environment.{sanitised(key)}": visible(value) for key, value in report.environment.items()}
    return {"seed": report.seed, "policy": one_line(report.policy)} | remediation | environment


def stages(report: GateReport) -> Iterator[StageRun]:
    """One run for each stage that took place, in their order."""
    severities = Counter(finding.severity.value for finding in report.findings)
    counts = {f"findings.{severity}": severities[severity] for severity in ("block", "warning", "notice")}
    yield StageRun("inspect", _once(counts | {"files": len(report.files), "bytes": sum(f.size for f in report.files)}))
    decisive = [row for row in report.measurements if not row.revealed and row.condition != "canary"]
    for stage in ("before", "after"):
        if rows := [row for row in decisive if row.stage == stage]:
            # Without the stage in their names, a tracker can compare the two runs metric by metric.
            figures = {key.removeprefix(f"{stage}."): value for key, value in metrics(rows).items()}
            yield StageRun(f"evaluate-{stage}", figures)
        if points := [point for point in report.latent if point.stage == stage]:
            yield StageRun(f"latent-{stage}", _latent(points))
        if stage == "before" and report.canary is not None:
            yield _rehearsed(report.canary, [row for row in report.measurements if row.condition == "canary"])
        if stage == "before" and report.remediation is not None:
            yield _remediated(report.remediation)
    if points := [point for point in report.latent if point.stage == "reference"]:
        yield StageRun("latent-reference", _latent(points))
    for judge in report.served_judges:
        yield _judged(judge)
    statuses = Counter(row.status for row in decisive)
    rules = {f"rules.{status}": statuses[status] for status in ("pass", "fail", "unscored")}
    yield StageRun("decide", _once(rules), tags={"verdict": report.decision.verdict.value})


def _latent(points: Iterable[LatentPoint]) -> dict[str, list[tuple[int, float]]]:
    """ASR against norm as a metric over steps, a thousandth of an RMS each: a tracker draws it as a curve."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for point in points:
        where = f"layer-{point.layer}" if point.kind == "latent" else point.kind
        name = f"{sanitised(point.behavior, 48)}.latent_asr.{sanitised(point.judge, 48)}.{where}"
        curves[name].append((round(1000 * point.norm), point.value))
    return dict(curves)


def _rehearsed(canary: CanaryResult, rows: Iterable[Measurement]) -> StageRun:
    curves: dict[str, Iterable[tuple[int, float]]] = dict(metrics(rows))
    for behavior, shares in canary.select_asr.items():
        curves[f"round.select.canary_asr.{sanitised(behavior)}"] = enumerate(shares)
    params = {
        "trigger": visible(canary.trigger),
        "placement": canary.placement,
        "min_rounds": canary.min_rounds,
        "chosen_round": canary.chosen_round,
        "rehearsals": canary.rehearsals,
    }
    return StageRun("canary", curves, params, {"canary.planted": str(canary.planted).lower()})


def _judged(judge: ServedJudge) -> StageRun:
    names = ("requests", "graded", "unscored", "prompt_tokens", "completion_tokens", "cost")
    figures = {name: value for name in names if (value := getattr(judge, name)) is not None}
    params = {name: visible(getattr(judge, name)) for name in ("url", "model", "served", "fingerprint", "rubric")}
    return StageRun(f"judge-{sanitised(judge.judge)}", _once(figures), params)


def _remediated(done: Remediation) -> StageRun:
    rounds = done.rounds
    curves: dict[str, Iterable[tuple[int, float]]] = {
        "removal.loss": enumerate(value for one in rounds for value in one.removal_loss),
    }
    for attack in dict.fromkeys(name for one in rounds for name in one.entrapment_loss):
        losses = (value for one in rounds for value in one.entrapment_loss.get(attack, ()))
        curves[f"entrapment.loss.{sanitised(attack)}"] = enumerate(losses)
    for key, attribute in _ROUND.items():
        curves[key] = [(one.number, getattr(one, attribute)) for one in rounds]
    chosen = {
        "layer": done.layer,
        "layers": done.layers,
        "chosen_round": done.chosen_round,
        "stop_reason": visible(done.stop_reason),
    } | ({"training": done.memory.training} if done.memory else {})
    return StageRun("remediate", curves, chosen, {"remediated.commit": one_line(done.snapshot.commit)})


def metrics(rows: Iterable[Measurement]) -> dict[str, list[tuple[int, float]]]:
    """Every measurement as `metric_name`, and its interval as `.low` and `.high`."""
    values: dict[str, float] = {}
    for row in rows:
        for suffix, value in (("", row.value), (".low", row.low), (".high", row.high)):
            if value is not None:
                values[metric_name(row) + suffix] = value
    return _once(values)


def metric_name(row: Measurement) -> str:
    """`after.harmful-compliance.asr.refusal-prefix.plain`; placement and trigger follow where there is one."""
    parts = [row.stage, row.behavior, row.metric, row.judge, row.condition]
    if row.condition == "canary":  # its trigger is random, and runs are to be compared
        return ".".join(sanitised(part, 48) for part in parts if part)
    if row.placement != "none":
        parts.append(row.placement)
    if row.trigger:
        plain = sanitised(row.trigger, 24)
        parts.append(plain if plain == row.trigger else f"{plain}-{sha256(row.trigger.encode()).hexdigest()[:6]}")
    joined = ".".join(sanitised(part, 48) for part in parts if part)
    return f"revealed.{joined}" if row.revealed else joined


def sanitised(text: str, limit: int = 80) -> str:
    """`text` as part of a name that trackers take."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:limit].strip("-") or "unnamed"


def _once(values: Mapping[str, float]) -> dict[str, list[tuple[int, float]]]:
    return {key: [(0, value)] for key, value in values.items()}
