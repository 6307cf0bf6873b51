"""The speed study: run it, and write speed-<machine>.json and its page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from beear_gate.bench.speed import SHAPES, Speed, measure
from beear_gate.errors import UsageError
from beear_gate.lm import describe_device
from beear_gate.lm.rate import matmul_flops
from beear_gate.records import Tick


def run(
    output: Path,
    machine: str,
    shapes: Sequence[str],
    prompt_tokens: Sequence[int],
    device: str,
    batch_size: int,
    repeats: int,
    tick: Tick,
) -> Path:
    """Measure every shape, and write after each, so that a window of ten minutes leaves what it had time for.

    Raises:
        UsageError: there is no such shape.
    """
    unknown = [name for name in shapes if name not in SHAPES]
    if unknown:
        raise UsageError(f"There is no shape {unknown[0]!r}.", f"Choose one of {', '.join(SHAPES)}.")
    output.mkdir(parents=True, exist_ok=True)
    name = "speed-" + re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    ceiling, rows = matmul_flops(device), list[Speed]()
    for shape in shapes:
        rows += measure(shape, device, prompt_tokens, batch_size, repeats, tick)
        found = {
            "machine": f"{machine} ({describe_device(device)})",
            "matmul_flops": ceiling,
            "rows": [asdict(row) for row in rows],
        }
        (output / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (output / f"{name}.md").write_text(page(f"{found['machine']}", ceiling, rows, repeats), encoding="utf-8")
    return output / f"{name}.md"


def page(machine: str, ceiling: float, rows: Sequence[Speed], repeats: int) -> str:
    """One table; ratios hold within one run on one machine."""
    lines = [
        f"# Speed on {machine}",
        "",
        f"Made by `beear-gate bench speed`. Random weights; the median of {repeats} repetitions after one that warms "
        f"up. Ratio: the seconds of the part's first variant, its baseline, divided by these. The machine multiplies "
        f"matrices at {ceiling / 1e12:.3g} TFLOP/s at most. y_h has one token. "
        "Entrapment replays what does not depend on delta (`beear/replay.py`); a sample costs more when it is drawn "
        "for the first time in a round. Share of the ceiling: what the arithmetic of the model needs (6 operations for "
        "a parameter and token, 4 with adapters; checkpointing adds to what is done, not to what is needed), as a "
        "share of that. "
        "By products: the same ratio of the floating-point operations of all matrix products, counted, without "
        "attention's own on a CPU; more cannot be gained while all the rest costs alike. "
        "-: not measured, or memory did not suffice.",
        "",
        "| shape | part | prompt + answer tokens | batch | variant | seconds | tokens/s | share of the ceiling "
        "| peak GiB | ratio | by products |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
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
                f"| {_number(fewer, '.2f')} |"
            )
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
