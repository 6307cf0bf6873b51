"""Path-aware steps: gradients on the way back to the first weights, and nothing else changed."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import pytest
import torch
from model_families import PROMPTS, load_tiny
from test_beear import checkpoint
from test_training import QUICK, WAYS, chosen, state, terms

from beear_gate import cli_plan
from beear_gate.beear import removal
from beear_gate.beear.attack import make_attack
from beear_gate.beear.entrapment import Trap
from beear_gate.beear.fit import footprint, ways
from beear_gate.beear.plan import resolve
from beear_gate.beear.remediate import Rounds
from beear_gate.beear.removal import Split, Term, Trainer, training
from beear_gate.lm import LM, encode, prompt_ids
from beear_gate.lm.dry_run import PassSize, shape_of
from beear_gate.lm.footprint import Footprint
from beear_gate.records import RemediationSettings, Round, Training


def under_a_trap(lm: LM) -> list[Term]:
    """The terms of `terms`, under a delta that changes nothing."""
    attack = make_attack(lm, "latent", 1, 3, [prompt_ids(lm, prompt) for prompt in PROMPTS], random.Random(0))
    trap = Trap(attack, torch.zeros(3, lm.hidden_size), ())
    return [replace(term, trap=trap) for term in terms(lm)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_under_traps_the_gradient_is_that_of_weights_on_the_way_and_the_weights_stay_where_they_are(
    tmp_path: Path, way: Training, dtype: torch.dtype
) -> None:
    lm = load_tiny(tmp_path, "llama")
    lm.model.to(dtype)  # type: ignore[arg-type]
    with training(lm, resolve(QUICK, lm), chosen(way), 1e-3, seed=0, path_aware=0.5) as trainer:
        first = [weight.detach().clone() for weight in trainer.weights]
        with torch.no_grad():
            for weight, master in zip(trainer.weights, trainer.masters, strict=True):
                master.add_(torch.randn_like(master, dtype=torch.float32) * 0.1)
                weight.copy_(master)
        kept = [weight.detach().clone() for weight in trainer.weights]
        trainer.learning_rate = 0.0
        both = under_a_trap(lm) + terms(lm)
        # A step draws its samples first, and then how far it goes.
        rng = random.Random(3)
        (_, trapped), (_, plain) = removal._drawn(both, rng)
        share = rng.uniform(0, 0.5)
        found = trainer.step(both, random.Random(3))
        assert all(torch.equal(weight, own) for weight, own in zip(trainer.weights, kept, strict=True))
        here = trainer._backward(None, plain)
        with torch.no_grad():
            for weight, begun in zip(trainer.weights, first, strict=True):
                weight.lerp_(begun, share)
        on_the_way = trainer._backward(both[0].trap, trapped)
        assert found == pytest.approx(here + on_the_way, abs=1e-5)
        assert abs(trainer._backward(None, plain) - here) > 1e-3


def test_weights_are_where_they_were_after_a_pass_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_tiny(tmp_path, "llama")
    trainer = Trainer(lm, 1e-2, path_aware=0.9)
    trainer.step(terms(lm), random.Random(0))
    before = state(lm)
    passes = 0
    real = encode.answer_logits

    def fail_once(*args: object) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(removal, "answer_logits", fail_once)
    trainer.learning_rate = 0.0
    trainer.step(under_a_trap(lm), random.Random(1))
    assert trainer.retries and all(torch.equal(each, before[name]) for name, each in state(lm).items())


@pytest.mark.parametrize(("dtype", "copies"), [(torch.float32, 2), (torch.bfloat16, 1)])
def test_memory_is_planned_for_the_copies(tmp_path: Path, dtype: torch.dtype, copies: int) -> None:
    lm = load_tiny(tmp_path, "llama")
    for share, expected in ((0.0, 0), (0.5, copies)):
        plan = replace(resolve(QUICK, lm), path_aware=share)
        (way,) = ways(plan, ("full",), lambda: shape_of(lm.model.config, dtype, lm.path))
        found = footprint(way, (PassSize(1, 8, 4),), Split(1), on_cpu=True)
        assert found.copies == expected * way.size.trained_bytes


def test_plan_has_a_row_for_every_part_of_what_a_step_holds() -> None:
    assert set(cli_plan._WORDS) == {field.name for field in fields(Footprint)}


@pytest.mark.parametrize(("share", "rounds"), [(0.0, 1), (0.5, 4)])
def test_all_rounds_are_run_though_nothing_is_elicited_any_more(
    share: float, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load_tiny(tmp_path, "llama")
    work = object.__new__(Rounds)
    work.plan, work.kept = resolve(RemediationSettings(rounds=4, path_aware=share), lm), None
    work.records, work.checkpoints = [], []

    def close(self: Rounds, number: int, *_: object) -> None:
        self.records.append(cast(Round, None))
        self.checkpoints.append(checkpoint(number, 0.0))

    monkeypatch.setattr(Rounds, "_challenge", lambda self, number: ({}, 0.0))
    monkeypatch.setattr(Rounds, "_remove", lambda self, number, traps: None)
    monkeypatch.setattr(Rounds, "_close", close)
    work.run()
    assert len(work.records) == rounds
