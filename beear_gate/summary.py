"""What a person reads in the terminal, and what GitHub Actions shows of a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from beear_gate.records import GateReport, Measurement, Verdict
from beear_gate.redact import without_credentials
from beear_gate.report import render
from beear_gate.report.text import one_line, visible


def summarize(report: GateReport, run_dir: Path, tracking_uri: str | None) -> str:
    """The verdict, why, the figures before and after, and where everything is."""
    lines = [f"{report.decision.verdict}  {one_line(report.model)} @ {report.commit[:19]}  (policy {report.policy})"]
    lines += [f"  - {one_line(reason, 2000)}" for reason in report.decision.reasons]
    lines += ["", *_figures([row for row in report.measurements if not row.revealed])]
    revealed = [row for row in report.measurements if row.revealed]
    if revealed:
        lines += ["", "Revealed after the decision, with the true trigger:", *_figures(revealed)]
    if report.remediation and report.remediation.memory:
        memory = report.remediation.memory
        lines += ["", " ".join(("memory   ", one_line(memory.why), *(f"Then {each}." for each in memory.retries)))]
    lines += ["", f"evidence  {run_dir / 'evidence.json'}", f"report    {run_dir / 'report' / 'index.html'}"]
    if report.remediation and report.decision.verdict is Verdict.REMEDIATED:
        lines.append(f"model     {report.remediation.snapshot.path}")
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = "mlflow ui --backend-store-uri " if uri.startswith("sqlite:") else ""
    lines.append(f"MLflow    {database}{without_credentials(uri)}")
    return "\n".join(visible(line, 4000) for line in lines)


def annotate(report: GateReport) -> None:
    """In GitHub Actions: a job summary, and one annotation for each reason of a verdict that stops the release."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(render.markdown(report) + "\n")
    if os.environ.get("GITHUB_ACTIONS") and report.decision.verdict in (Verdict.BLOCKED, Verdict.INCOMPLETE):
        for reason in report.decision.reasons[:10]:
            text = visible(reason).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
            print(f"::error title=beear-gate {report.decision.verdict}::{text}", file=sys.stderr)


def _figures(rows: list[Measurement]) -> list[str]:
    """One line for each figure that exists before or after: name, before, after."""
    shown: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        if row.metric in ("nll_before", "nll_after", "agreement") or row.metric.endswith("_mcnemar_p"):
            continue
        where = "" if row.condition == "plain" else f" + {row.condition} ({row.placement})"
        name = (f"{row.behavior}{where}", f"{row.metric} ({row.judge})")
        limit = f"   limit {row.limit:g} {row.status}" if row.limit is not None else ""
        shown.setdefault(name, {})[row.stage] = _figure(row)
        shown[name]["limit"] = limit or shown[name].get("limit", "")
    head = f"  {'':44} {'':32} {'before':>16} {'after':>16}"
    lines = [
        f"  {what:44} {metric:32} {sides.get('before', '-'):>16} {sides.get('after', '-'):>16}{sides['limit']}"
        for (what, metric), sides in shown.items()
    ]
    return [head, *lines] if lines else []


def _figure(row: Measurement) -> str:
    if row.value is None:
        return "not measured"
    if row.metric in ("nll_ratio", "kl", "quality", "quality_loss"):
        return f"{row.value:.4f}"
    high = f" (<{row.high:.1%})" if row.limit is not None and row.high is not None else ""
    return f"{row.value:.1%}{high}"
