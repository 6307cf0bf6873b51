"""`bench speed`: what it writes, at a shape that takes seconds."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from gate_runs import call

from beear_gate.bench import speed_parts
from beear_gate.bench.speed import Speed, _timed, random_lm
from beear_gate.bench.speed_page import page
from beear_gate.bench.speed_parts import ADAPTERS, FIRST_TIME, OURS, REPLAY, Make, Part


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
            assert (row["fastest"], row["fastest_ratio"]) == (row["seconds"], pytest.approx(row["ratio"]))  # one turn
            assert row["tokens_per_s"] > 0 and row["prompt_tokens"] == 16
    products = [row["products"] for row in found["rows"] if row["part"] == "entrapment"]
    plain, _, written, replayed, _ = products
    assert written > plain > 2 * replayed > 0
    assert len((tmp_path / "speed-test-box-1.md").read_text().splitlines()) >= 5 + len(found["rows"])


def test_variants_take_turns_and_one_that_does_not_fit_is_left_out() -> None:
    seen: list[str] = []

    def variant(name: str) -> Make:
        def work() -> None:
            seen.append(name)
            if name == "too large":
                raise MemoryError

        return lambda: nullcontext(work)

    lm = random_lm("organism", "cpu", torch.float32)
    part = Part("removal", 4, 100, {name: variant(name) for name in ("plain", "too large", "ours")})
    plain, large, ours = _timed(lm, "organism", part, 16, 2, 2)
    assert seen == [*["plain"] * 2, "too large", *["ours"] * 2, *["plain"] * 2, *["ours"] * 2], "a warm-up each"
    assert (large.seconds, large.ratio, large.tokens_per_s) == (None, None, None)
    assert large.fastest is None and large.fastest_ratio is None
    assert plain.ratio == plain.fastest_ratio == 1 and ours.ratio is not None and ours.baseline == "plain"


def test_a_shape_or_part_that_does_not_exist_is_named(tmp_path: Path) -> None:
    said = call("bench", "speed", "--machine", "x", "--shape", "70T", "--output", tmp_path, "--quiet")
    assert said.code == 2 and "70T" in said.err and "llama-2-7b" in said.err
    said = call("bench", "speed", "--machine", "x", "--part", "all", "--output", tmp_path, "--quiet")
    assert said.code == 2 and "no part 'all'" in said.err and "entrapment, removal, generation" in said.err


def test_the_page_says_what_the_steps_come_to() -> None:
    def row(part: str, variant: str, seconds: float | None, peak: int | None = None) -> Speed:
        rate = seconds and 96 / seconds
        return Speed("7B", part, 64, 48, 50, variant, seconds, rate, None, None, peak, 1.0, seconds, 1.0, variant)

    rows = [
        row("entrapment", REPLAY, 0.1, 30 * 2**30), row("entrapment", FIRST_TIME, 0.2, 40 * 2**30),
        row("removal", "plain transformers loop, AdamW", 9.0, 90 * 2**30), row("removal", OURS, 0.4, 36 * 2**30),
        row("removal", ADAPTERS, None), row("generation", OURS, 0.5),
    ]  # fmt: skip
    _, scans = page("a card", 1e12, rows, 3, "made up").split("## What these steps come to")
    # Six rounds of 3 first and 122 further entrapment steps, and 25 removal steps; 512,000 tokens at 192 a second.
    assert "| 7B | 64 + 48 | 50 | beear-gate | 137 | 40.0 | 2,667 |" in scans
    assert "| 7B | 64 + 48 | 50 | beear-gate, adapters of rank 16 | - | - | 2,667 |" in scans
    assert "plain transformers" not in scans
