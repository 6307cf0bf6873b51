"""Peaks of removal steps on a CPU, by torch's own record of every allocation: run in a process of its own.

python tests/measure_step.py FOLDER...    one JSON object: {"FOLDER dtype training split": [measured, planned]}
"""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from beear_gate.beear.fit import Way, footprint, size_of
from beear_gate.beear.removal import Split, Term, Trainer
from beear_gate.lm import LM, load_lm
from beear_gate.lm.dry_run import PassSize, pass_bytes, shape_of
from beear_gate.lm.encode import Pair
from beear_gate.lm.trained import narrow
from beear_gate.records import Training

TOKENS, ANSWER = 60, 20
CASES: tuple[tuple[Training, Split], ...] = (
    ("full", Split(8)),
    ("full", Split(8, True)),
    ("full", Split(2, True)),
    ("factored", Split(8, True)),
    ("lora", Split(8)),
    ("lora", Split(2, True)),
)
RANK = 8


def measured(lm: LM, split: Split, training: Training) -> int:
    """Bytes at the fullest moment of a step of two passes, of which the second meets the gradients of the first."""
    rng = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, lm.vocabulary) for _ in range(count))

    pairs = [Pair(ids(TOKENS - ANSWER), ids(ANSWER)) for _ in range(2 * split.samples)]
    narrow(lm, RANK if training == "lora" else None, None)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        trainer = Trainer(lm, 1e-5, split, training)
        trainer.step([Term(pairs, None, len(pairs))], rng)
    assert seen.profiler and seen.profiler.kineto_results
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak + size_of(lm).bytes


def planned(lm: LM, split: Split, training: Training) -> int:
    shape = shape_of(copy.deepcopy(lm.model.config), lm.model.dtype, lm.path)
    narrow(shape, RANK if training == "lora" else None, None)
    way = Way(training, size_of(shape), partial(pass_bytes, shape))
    return footprint(way, (PassSize(split.samples, TOKENS, ANSWER),), split, on_cpu=False).total


def measure(folders: list[Path]) -> Iterator[tuple[str, tuple[int, int]]]:
    for folder, dtype in product(folders, ("float32", "bfloat16")):
        for training, split in CASES:
            lm = load_lm(folder, "cpu", dtype)
            yield (
                f"{folder.name} {dtype} {training}: {split}",
                (
                    measured(lm, split, training),
                    planned(lm, split, training),
                ),
            )


if __name__ == "__main__":
    print(json.dumps(dict(measure([Path(name) for name in sys.argv[1:]]))))
