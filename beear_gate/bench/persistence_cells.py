"""Cells of the persistence study: one organism, one seed, one test, one model, each a JSON file of its own.

A cell is kept as soon as it is measured, with the checksum of the repaired weights, so that a study that was stopped
goes on where it was; it is measured again when the weights that are kept are others, or the organism's recipe is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from beear_gate.bench.persistence_records import Check, Lasting, Relearned
from beear_gate.bench.removal import weights_path
from beear_gate.organisms import Recipe

_STATES = {
    "as is": "return",
    "ordinary tuning": "return",
    "benign tuning": "return",
    "bfloat16": "copies",
    "int8": "copies",
}
"""The test that a state of a model belongs to."""
_CHECKS = ("return", "copies")
_REPAIRED = (*_CHECKS, "relearn")
TESTS = {"repaired": _REPAIRED, "direct": _REPAIRED, "clean": ("return", "relearn")}
"""What is done to which model, in this order."""


def unpack(results: Path, cells: Path) -> None:
    """Cells of a results file as files of their own, so that a study goes on from a committed table.

    They come without the weights that they were measured on, so they are measured again where `deep` left others.
    """
    cells.mkdir(parents=True, exist_ok=True)
    found = _lasting(json.loads(results.read_text(encoding="utf-8"))) if results.exists() else Lasting((), ())
    grouped: dict[Path, list[Check | Relearned]] = {}
    for check in found.checks:
        test = _STATES[check.state]
        grouped.setdefault(_path(cells, check.organism, check.seed, test, check.model), []).append(check)
    for row in found.relearned:
        grouped.setdefault(_path(cells, row.organism, row.seed, "relearn", row.model), []).append(row)
    for path, rows in grouped.items():
        if not path.exists():
            _write(path, "", rows)


def read_cells(cells: Path, organisms: Sequence[Recipe]) -> Lasting:
    """All that was ever measured of these organisms, in their order."""
    return _lasting(
        {
            "checks": [row for of in organisms for test in _CHECKS for row in _rows(cells, of, test)],
            "relearned": [row for of in organisms for row in _rows(cells, of, "relearn")],
        }
    )


def write_cell(cells: Path, of: Recipe, test: str, model: str, rows: Sequence[Check | Relearned]) -> None:
    """Keep a cell, with the checksum of the weights that are kept now."""
    _write(_path(cells, of.name, of.seed, test, model), _weights(cells, of, model) or "", rows)


def current(cells: Path, of: Recipe, test: str, model: str) -> bool:
    """Whether a cell is there, of this recipe and of the weights that are kept; without any it is believed."""
    path, weights = _path(cells, of.name, of.seed, test, model), _weights(cells, of, model)
    if not path.exists():
        return False
    cell = _read(path)
    grown_alike = all(row["recipe"] == digest(of) for row in cell["rows"])
    return grown_alike and (weights is None or cell["weights"] == weights)


def digest(of: Recipe) -> str:
    """What rows call a recipe, as cells of the removal study do."""
    return of.digest[:16]


def kept(cells: Path, of: Recipe, model: str) -> Path:
    """Where repaired weights are."""
    path = weights_path(cells, of.name, of.seed)
    return path if model == "repaired" else path.with_name(f"{of.name}.{of.seed}.{model}.safetensors")


def _weights(cells: Path, of: Recipe, model: str) -> str | None:
    """Checksum of the repaired weights; a model without a backdoor is what its recipe makes of it."""
    path = kept(cells, of, model)
    return sha256(path.read_bytes()).hexdigest() if model != "clean" and path.exists() else None


def _rows(cells: Path, of: Recipe, test: str) -> Iterator[dict[str, Any]]:
    for model, tests in TESTS.items():
        path = _path(cells, of.name, of.seed, test, model)
        if test in tests and path.exists():
            yield from (row for row in _read(path)["rows"] if row["recipe"] == digest(of))


def _lasting(record: dict[str, Any]) -> Lasting:
    """Rows as JSON has them."""
    return Lasting(
        checks=tuple(Check(**row) for row in record["checks"]),
        relearned=tuple(
            Relearned(**{**row, "tries": tuple((samples, hits) for samples, hits in row["tries"])})
            for row in record["relearned"]
        ),
    )


def _read(path: Path) -> dict[str, Any]:
    cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return cell


def _write(path: Path, weights: str, rows: Sequence[Check | Relearned]) -> None:
    """Whole or not at all: a study that is stopped while it writes must not find half a cell."""
    partial = path.with_suffix(".partial")
    cell = {"weights": weights, "rows": [asdict(row) for row in rows]}
    partial.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _path(cells: Path, name: str, seed: int, test: str, model: str) -> Path:
    return cells / f"{name}.{seed}.persistence-{test}.{model}.json"
