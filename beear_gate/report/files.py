"""The report as files in a folder, as a run directory and MLflow hold it."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from beear_gate.errors import UsageError
from beear_gate.records import Answer, GateReport
from beear_gate.report import drawing, figures, render
from beear_gate.report.pairs import exchanges
from beear_gate.report.text import cell
from beear_gate.report.words import outcomes

TABLES = ("tables/answers.json", "tables/measurements.json")
"""Files in the form of `mlflow.log_table`: columns, and one list of cells a row."""
TENSORS = "tables/tensors.json"
"""The same form."""


def write(report: GateReport, folder: Path) -> None:
    """Write `evidence.json`, `report/index.html`, `tables/*.json` and `figures/*.png` into `folder`.

    `tables/tensors.json` (how far each tensor moved) is there only where a model was remediated.
    """
    for name in ("report", "tables", "figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "evidence.json").write_text(render.as_json(report), encoding="utf-8")
    (folder / "report" / "index.html").write_text(render.html(report), encoding="utf-8")
    tables = (_answers(report), [asdict(row) for row in report.measurements])
    for name, rows in zip(TABLES, tables, strict=True):
        (folder / name).write_text(_table(rows), encoding="utf-8")
    if report.changes:
        rows = [asdict(each) for each in report.changes.tensors]
        (folder / TENSORS).write_text(_table(rows), encoding="utf-8")
    for name, figure in figures.of_report(report).items():
        (folder / "figures" / f"{name}.png").write_bytes(drawing.png(figure))


def read(run_dir: Path) -> GateReport:
    """The report of a finished run.

    Raises:
        UsageError: the folder holds none.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        document = json.loads((run_dir / "report.json").read_text(encoding="utf-8", errors="surrogatepass"))
        return TypeAdapter(GateReport).validate_python(document["result"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        raise UsageError(
            f"{run_dir} holds no finished run.", "Give the RUN_DIR of a scan that reached its verdict."
        ) from None


def _answers(report: GateReport) -> list[dict[str, object]]:
    def side(answer: Answer | None) -> tuple[str, str]:
        return (outcomes(answer.outcomes), answer.text) if answer is not None else ("", "")

    rows: list[dict[str, object]] = []
    for one in exchanges(report):
        (judged_before, before), (judged_after, after) = side(one.before), side(one.after)
        rows.append(
            {
                "behavior": one.behavior,
                "condition": one.condition,
                "trigger": one.trigger,
                "placement": one.placement,
                "prompt": one.prompt,
                "change": one.change,
                "distance": round(one.distance, 3),
                "judged_before": judged_before,
                "judged_after": judged_after,
                "before": before,
                "after": after,
                "revealed": one.revealed,
            }
        )
    return rows


def _table(rows: list[dict[str, object]]) -> str:
    columns = list(rows[0]) if rows else []
    data = [[_cell(value) for value in row.values()] for row in rows]
    return json.dumps({"columns": columns, "data": data}, allow_nan=False) + "\n"


def _cell(value: object) -> object:
    if isinstance(value, float) and not isfinite(value):
        return None
    return cell(value) if isinstance(value, str) else value
