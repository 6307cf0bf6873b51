"""`evidence.json`: what other tools read. Stable; docs/evidence.schema.json describes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from math import isfinite

from beear_gate.records import Conversion, GateReport, MemoryPlan, Remediation, worst_first
from beear_gate.report import tensors
from beear_gate.report.pairs import pairs
from beear_gate.report.words import sentence

SCHEMA = "beear-gate/evidence/v1"


def evidence(report: GateReport) -> dict[str, object]:
    """The report without its answers, as plain JSON values; NaN and infinities become None."""
    rules = [pair.last for pair in pairs(report.measurements) if pair.decides]
    document: dict[str, object] = {
        "schema": SCHEMA,
        "model": report.model,
        "commit": report.commit,
        "policy": {"name": report.policy, "digest": report.policy_digest},
        "verdict": report.decision.verdict.value,
        "reasons": list(report.decision.reasons),
        "because": list(report.decision.because),
        "rules": [{"rule": sentence(row)} | asdict(row) for row in sorted(rules, key=worst_first)],
        "measurements": [asdict(row) for row in report.measurements],
        "findings": [asdict(finding) for finding in report.findings],
        "remediation": _remediation(report.remediation),
        "changes": tensors.summary(report.changes),
        "canary": asdict(report.canary) if report.canary else None,
        "calibrations": [asdict(each) for each in report.calibrations],
        "served_judges": [asdict(each) for each in report.served_judges],
        "latent": [asdict(point) | {"value": point.value} for point in report.latent],
        "sandbox": asdict(report.sandbox) if report.sandbox else None,
        "converted": _converted(report.converted),
        "environment": dict(report.environment),
        "seconds": report.seconds,
        "seed": report.seed,
        "not_tested": list(report.not_tested),
    }
    finite = _finite(document)
    assert isinstance(finite, dict)
    return finite


def as_json(report: GateReport) -> str:
    """`evidence` as one JSON document."""
    return json.dumps(evidence(report), indent=2, allow_nan=False) + "\n"


def _remediation(remediation: Remediation | None) -> dict[str, object] | None:
    if remediation is None:
        return None
    return {
        "commit": remediation.snapshot.commit,  # of what was saved, reloaded and measured
        "mode": remediation.settings.mode,
        "layer": remediation.layer,
        "layers": remediation.layers,
        "rounds": len(remediation.rounds),
        "chosen_round": remediation.chosen_round,
        "stop_reason": remediation.stop_reason,
        "seconds": remediation.seconds,
        "settings": asdict(remediation.settings),
        "whole_passes": list(remediation.whole_passes),
        "memory": _memory(remediation.memory),
    }


def _memory(plan: MemoryPlan | None) -> dict[str, object] | None:
    return asdict(plan) | {"needed": plan.needed} if plan else None


def _converted(conversion: Conversion | None) -> dict[str, object] | None:
    """Which pickle became which safetensors file; None where nothing did."""
    if conversion is None or not conversion.files:
        return None
    rows = [
        {"source": each.source.path, "source_sha256": each.source.sha256}
        | {"target": each.target.path, "target_sha256": each.target.sha256}
        for each in conversion.files
    ]
    return {"commit": conversion.snapshot.commit, "files": rows}


def _finite(value: object) -> object:
    """JSON knows no NaN; a figure that is not a number is a figure that was not measured."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
