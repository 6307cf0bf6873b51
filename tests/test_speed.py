"""`bench speed`: what it writes, at a shape that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gate_runs import call

from beear_gate.bench import speed_parts


def test_every_part_is_measured_against_its_own_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_parts, "ANSWER_TOKENS", 4)
    said = call(
        "bench", "speed", "--machine", "Test <box> 1", "--shape", "organism", "--prompt-tokens", 16,
        "--batch-size", 2, "--repeats", 1, "--device", "cpu", "--output", tmp_path, "--quiet",
    )  # fmt: skip
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "speed-test-box-1.json").read_text())
    assert found["matmul_flops"] > 0
    parts = {row["part"] for row in found["rows"]}
    assert parts == {"entrapment", "removal", "generation"}
    for part in parts:
        rows = [row for row in found["rows"] if row["part"] == part]
        assert rows[0]["variant"] == rows[0]["baseline"] and rows[0]["ratio"] == 1
        for row in rows:
            assert row["ratio"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
            assert row["tokens_per_s"] > 0 and row["prompt_tokens"] == 16
    products = [row["products"] for row in found["rows"] if row["part"] == "entrapment"]
    plain, _, written, replayed, _ = products
    assert written > plain > 2 * replayed > 0
    assert len((tmp_path / "speed-test-box-1.md").read_text().splitlines()) >= 5 + len(found["rows"])


def test_a_shape_that_does_not_exist_is_named(tmp_path: Path) -> None:
    said = call("bench", "speed", "--machine", "x", "--shape", "70T", "--output", tmp_path, "--quiet")
    assert said.code == 2 and "70T" in said.err and "llama-2-7b" in said.err
