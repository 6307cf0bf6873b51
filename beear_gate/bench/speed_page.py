"""The speed study: run it, and write speed-<machine>.json and its page."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import torch

from beear_gate.bench.speed import PARTS, SHAPES, Speed, measure
from beear_gate.bench.speed_parts import FIRST_TIME, OURS, REPLAY
from beear_gate.errors import UsageError
from beear_gate.lm import describe_device
from beear_gate.lm.rate import matmul_flops
from beear_gate.records import Tick


def run(
    output: Path,
    machine: str,
    shapes: Sequence[str],
    prompt_tokens: Sequence[int],
    parts: Sequence[str],
    device: str,
    batch_size: int,
    repeats: int,
    tick: Tick,
) -> Path:
    """Measure every shape, and write after each, so that a window of ten minutes leaves what it had time for.

    Raises:
        UsageError: there is no such shape or part.
    """
    for kind, asked_for, known in (("shape", shapes, SHAPES), ("part", parts, PARTS)):
        unknown = [name for name in asked_for if name not in known]
        if unknown:
            raise UsageError(f"There is no {kind} {unknown[0]!r}.", f"Choose one of {', '.join(known)}.")
    output.mkdir(parents=True, exist_ok=True)
    name = "speed-" + re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    asked = [f"--shape {each}" for each in shapes] + [f"--prompt-tokens {each}" for each in prompt_tokens]
    asked += [f"--part {each}" for each in parts if len(parts) < len(PARTS)]
    asked += [f"--batch-size {batch_size}", f"--repeats {repeats}"]
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()} " if "OMP_NUM_THREADS" in os.environ else ""
    command = f"{threads}beear-gate bench speed --machine '{machine}' {' '.join(asked)}"
    ceiling, rows = matmul_flops(device), list[Speed]()
    for shape in shapes:
        rows += measure(shape, device, prompt_tokens, parts, batch_size, repeats, tick)
        found = {
            "machine": f"{machine} ({describe_device(device)})",
            "matmul_flops": ceiling,
            "rows": [asdict(row) for row in rows],
        }
        (output / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (output / f"{name}.md").write_text(
            page(str(found["machine"]), ceiling, rows, repeats, command), encoding="utf-8"
        )
    return output / f"{name}.md"


def page(machine: str, ceiling: float, rows: Sequence[Speed], repeats: int, command: str) -> str:
    """One table; ratios hold within one run on one machine."""
    lines = [
        f"# Speed on {machine}",
        "",
        f"Made by `{command}`. Random weights. The variants of a part take turns; the median of {repeats} "
        f"{'turn' if repeats == 1 else 'turns'}, each after a run that warms up. Ratio: the seconds of the part's "
        "first variant, its baseline, divided by these of the same turn, the median of that. Fastest: the least "
        "seconds of any turn and the ratio of these, since what else a shared machine does only ever adds. The machine "
        f"multiplies matrices at {ceiling / 1e12:.3g} TFLOP/s at most. y_h has one token. "
        "Entrapment replays what does not depend on delta (`beear/replay.py`); a sample costs more when it is drawn "
        "for the first time in a round. Share of the ceiling: what the arithmetic of the model needs (6 operations for "
        "a parameter and token, 4 with adapters; checkpointing adds to what is done, not to what is needed), as a "
        "share of that. "
        "By products: the same ratio of the floating-point operations of all matrix products, counted, without "
        "attention's own on a CPU; more cannot be gained while all the rest costs alike. "
        "-: not measured, or memory did not suffice.",
        "",
        "| shape | part | prompt + answer tokens | batch | variant | seconds | tokens/s | share of the ceiling "
        "| peak GiB | ratio | fastest | its ratio | by products |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for _, group in groupby(rows, key=lambda row: (row.shape, row.part, row.prompt_tokens)):
        first = None
        for row in group:
            first = first or row
            fewer = row.products and first.products and first.products / row.products
            peak = row.peak_bytes and row.peak_bytes / 2**30
            share = row.model_flops and row.model_flops / ceiling
            lines.append(
                f"| {row.shape} | {row.part} | {row.prompt_tokens} + {row.answer_tokens} | {row.batch_size} "
                f"| {row.variant} | {_number(row.seconds, '.3f')} | {_number(row.tokens_per_s, ',.0f')} "
                f"| {_number(share, '.0%')} | {_number(peak, '.1f')} | {_number(row.ratio, '.2f')} "
                f"| {_number(row.fastest, '.3f')} | {_number(row.fastest_ratio, '.2f')} | {_number(fewer, '.2f')} |"
            )
    return "\n".join([*lines, *_scans(rows)]) + "\n"


ROUNDS, INNER_STEPS, OUTER_STEPS, SAMPLES = 6, 125, 25, 150
"""About the paper's budget for a model of 7 billion parameters; samples of D_SA that a round draws from."""
ANSWERS, ANSWER_TOKENS = 4_000, 128
"""Of a full scan: 2,000 before and 2,000 after, and the tokens of each."""


def _scans(rows: Sequence[Speed]) -> Iterator[str]:
    """What the measured steps come to in a whole remediation, and in the answers of a scan."""
    yield from (
        "",
        "## What these steps come to",
        "",
        f"By calculation, not run as a whole. Remediation: {ROUNDS} rounds of {INNER_STEPS} entrapment and "
        f"{OUTER_STEPS} removal steps at this batch, each round's {SAMPLES} samples drawn once for the first time. "
        f"Answers: {ANSWERS:,} of {ANSWER_TOKENS} tokens at this rate, prompts as here.",
        "",
        "| shape | prompt + answer tokens | batch | removal by | remediation, seconds | peak GiB | answers, seconds |",
        "|---|---|---|---|---|---|---|",
    )
    for (shape, length), group in groupby(rows, key=lambda row: (row.shape, row.prompt_tokens)):
        found = list(group)
        spent = {(row.part, row.variant): row.seconds for row in found}
        rate = next((row.tokens_per_s for row in found if (row.part, row.variant) == ("generation", OURS)), None)
        replay, fresh = spent.get(("entrapment", REPLAY)), spent.get(("entrapment", FIRST_TIME))
        entrapped = max((row.peak_bytes or 0 for row in found if row.variant in (REPLAY, FIRST_TIME)), default=0)
        for row in found:
            if row.part != "removal" or not row.variant.startswith(OURS):
                continue
            first = min(INNER_STEPS, -(-SAMPLES // row.batch_size))
            whole = replay and fresh and row.seconds and first * fresh + (INNER_STEPS - first) * replay
            whole = whole and ROUNDS * (whole + OUTER_STEPS * (row.seconds or 0.0))
            peak = row.peak_bytes and max(row.peak_bytes, entrapped) / 2**30
            yield (
                f"| {shape} | {length} + {row.answer_tokens} | {row.batch_size} | {row.variant} "
                f"| {_number(whole, ',.0f')} | {_number(peak, '.1f')} "
                f"| {_number(rate and ANSWERS * ANSWER_TOKENS / rate, ',.0f')} |"
            )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
