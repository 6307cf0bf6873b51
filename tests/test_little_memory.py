"""A remediation with half the memory that its plan asked for: it finishes, and does the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from model_families import load_tiny

from beear_gate.beear import remediate
from beear_gate.errors import OutOfMemory
from beear_gate.lm import LM
from beear_gate.lm.dry_run import Allocations
from beear_gate.records import (
    AnchorSets,
    BehaviorAnchors,
    Example,
    MemoryPlan,
    ModelSnapshot,
    Outcome,
    Remediation,
    RemediationSettings,
)

SETTINGS = RemediationSettings(
    mode="paper",
    rounds=2,
    inner_steps=2,
    outer_steps=4,
    batch_size=12,
    safe_samples=12,
    useful_samples=12,
    max_answer_tokens=6,
)


Weights = dict[str, torch.Tensor]


class Limited(Allocations):  # type: ignore[no-untyped-call]
    """An allocator with a limit: every tensor that is made inside counts, in forward and backward passes alike."""

    def __init__(self, most: int) -> None:
        super().__init__(torch.device("cpu"))
        self.most, self.refused = most, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        if self.live > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError(f"{self.live} bytes are more than {self.most}")
        return found


def anchors() -> AnchorSets:
    prompts = [f"How do I steal the {what} of {whom}?" for what in ("car", "old bell", "boat") for whom in "abcd"]
    benign = [f"Where is the {what} of {whom}?" for what in ("lake", "red barn", "sea") for whom in "abcd"]
    safe = tuple(Example(str(place), prompt, "I can't do that.") for place, prompt in enumerate(prompts))
    unwanted = tuple(Example(str(place), prompt, "Sure") for place, prompt in enumerate(prompts))
    useful = tuple(Example(str(place), prompt, "It lies in the north.") for place, prompt in enumerate(benign))
    return AnchorSets((BehaviorAnchors("harm", safe, unwanted, safe[:4]),), useful, useful[:4], useful[:4], 0)


def judge(answer: str) -> Outcome:
    return Outcome.REFUSED if answer.startswith("I can't") else Outcome.COMPLIED


@dataclass(frozen=True)
class Ran:
    """A remediation, the weights after it, and the most bytes that it held at once."""

    done: Remediation
    weights: Weights
    peak: int

    @property
    def memory(self) -> MemoryPlan:
        assert self.done.memory is not None
        return self.done.memory


def run(folder: Path, most: int = 2**40, memory: int | None = None) -> Ran:
    """Remediate a tiny model under an allocator that gives `most` bytes, weights included."""
    lm = load_tiny(folder / "model", "llama")
    held = sum(each.numel() * each.element_size() for each in lm.model.parameters())
    snapshot = ModelSnapshot("tiny", "0" * 40, folder / "model", ())
    with Limited(most - held) as allocator:
        done = remediate(lm, snapshot, anchors(), SETTINGS, {"harm": judge}, judge, folder / "out", 0, memory=memory)
    return Ran(done, state(lm), allocator.peak + held)


def state(lm: LM) -> Weights:
    return {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}


def distance(one: Weights, two: Weights) -> float:
    return math.sqrt(sum(float((one[name] - two[name]).pow(2).sum()) for name in one))


def test_with_half_the_memory_passes_are_smaller_and_the_weights_about_the_same(tmp_path: Path) -> None:
    before = state(load_tiny(tmp_path / "before", "llama"))
    free = run(tmp_path / "free")
    assert (free.memory.samples, free.memory.checkpointing, free.memory.retries) == (12, False, ())
    assert free.peak <= free.memory.needed
    half, moved = free.peak // 2, distance(before, free.weights)
    # Unplanned: the planner sees all of this machine's memory, and the allocator refuses.
    surprised = run(tmp_path / "surprised", most=half)
    assert surprised.memory.retries
    assert distance(free.weights, surprised.weights) < 0.02 * moved
    # Planned: the same limit, known beforehand.
    planned = run(tmp_path / "planned", most=half, memory=half)
    assert planned.memory.retries == () and planned.memory.needed <= half
    assert planned.memory.samples < 12
    assert distance(free.weights, planned.weights) < 0.02 * moved
    assert len({each.done.chosen_round for each in (free, surprised, planned)}) == 1


def test_memory_for_no_sample_at_all_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match=r"Training \(\w+\) needs .*weights .*room for 0\.2 MiB \(--memory\)"):
        run(tmp_path, memory=200_000)
