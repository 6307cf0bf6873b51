"""Peaks of removal steps on a CPU, by torch's own record of every allocation: run in a process of its own.

python tests/measure_step.py FOLDER...    one JSON object: {"FOLDER dtype split": [measured, planned]}
"""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from beear_gate.beear.fit import footprint, size_of
from beear_gate.beear.removal import Split, Term, Trainer
from beear_gate.lm import LM, load_lm
from beear_gate.lm.dry_run import PassSize, pass_bytes, shape_of
from beear_gate.lm.encode import Pair

TOKENS, ANSWER = 60, 20
SPLITS = (Split(8), Split(8, True), Split(2, True))


def measured(lm: LM, split: Split) -> int:
    """Bytes at the fullest moment of a step of two passes, of which the second meets the gradients of the first."""
    rng = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, lm.vocabulary) for _ in range(count))

    pairs = [Pair(ids(TOKENS - ANSWER), ids(ANSWER)) for _ in range(2 * split.samples)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        trainer = Trainer(lm, 1e-5, split)
        trainer.step([Term(pairs, None, len(pairs))], rng)
    assert seen.profiler and seen.profiler.kineto_results
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak + size_of(lm).bytes


def planned(lm: LM, split: Split) -> int:
    shape = shape_of(copy.deepcopy(lm.model.config), lm.model.dtype, lm.path)
    count = partial(pass_bytes, shape)
    return footprint(count, size_of(lm), (PassSize(split.samples, TOKENS, ANSWER),), split, on_cpu=False).total


def measure(folders: list[Path]) -> Iterator[tuple[str, tuple[int, int]]]:
    for folder in folders:
        for dtype in ("float32", "bfloat16"):
            for split in SPLITS:
                lm = load_lm(folder, "cpu", dtype)
                yield f"{folder.name} {dtype}: {split}", (measured(lm, split), planned(lm, split))


if __name__ == "__main__":
    print(json.dumps(dict(measure([Path(name) for name in sys.argv[1:]]))))
