"""Replayed entrapment: the same loss and gradient as whole passes, for every family and every kind of attack."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from model_families import FAMILIES, load_tiny, random_prompts
from torch import Tensor

from beear_gate.beear import replay as replay_module
from beear_gate.beear.attack import Attack, Kind, make_attack
from beear_gate.beear.entrapment import Sample, entrap, frozen, whole_passes
from beear_gate.beear.layout import Answers
from beear_gate.beear.plan import resolve
from beear_gate.beear.replay import Losses, Replay
from beear_gate.lm import LM
from beear_gate.lm.encode import Pair
from beear_gate.records import RemediationSettings

KINDS: tuple[Kind, ...] = ("latent", "prefix", "suffix")
AWAY = 0.5


def samples(attack: Attack, prompts: list[tuple[int, ...]]) -> list[Answers]:
    """Answers of mixed lengths; the second of each prompt begins with a token that is context only."""
    rng = random.Random(1)

    def tokens(shortest: int, longest: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 300) for _ in range(rng.randint(shortest, longest)))

    placed = [attack.insert(prompt) for prompt in prompts]
    return [(Pair(prompt, tokens(1, 4)), Pair(prompt, tokens(3, 12), 1)) for prompt in placed]


def equation_2(lm: LM, losses: Losses, delta_NH: Tensor, drawn: list[Answers]) -> tuple[Tensor, Tensor]:
    with frozen(lm):
        wrong, right = losses(delta_NH, drawn)
        loss = wrong.mean() - AWAY * right.mean()
        (gradient,) = torch.autograd.grad(loss, delta_NH)
    return loss.detach(), gradient


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_those_of_whole_passes(tmp_path: Path, family: str, kind: Kind) -> None:
    lm = load_tiny(tmp_path, family)
    prompts = random_prompts(6, 30, seed=1)  # longer and shorter than the families' sliding windows, and than delta
    attack = make_attack(lm, kind, 1, 3, prompts, random.Random(0))
    drawn = samples(attack, prompts)
    torch.manual_seed(0)
    delta_NH = (torch.randn(3, lm.hidden_size) * attack.rms).requires_grad_()
    replay = Replay(lm, attack, drawn)
    equation_2(lm, replay.losses, delta_NH, drawn[:2])  # recorded in two batches of other widths
    loss, gradient = equation_2(lm, replay.losses, delta_NH, drawn)
    expected, wanted = equation_2(lm, whole_passes(lm, attack), delta_NH, drawn)
    assert torch.allclose(loss, expected, rtol=1e-5)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", ["q_proj", "k_proj", "v_proj"]),
        ("gpt2", ["c_attn"]),
        ("gpt_neox", ["query_key_value", "dense_h_to_4h", "dense_4h_to_h"]),  # its MLP stands beside attention
    ],
)
def test_what_comes_to_answers_before_attention_is_computed_once(tmp_path: Path, family: str, names: list[str]) -> None:
    lm = load_tiny(tmp_path, family)
    prompts = random_prompts(4, 20)
    attack = make_attack(lm, "latent", 1, 2, prompts, random.Random(0))
    drawn, none = samples(attack, prompts), torch.zeros(2, lm.hidden_size)
    replay = Replay(lm, attack, drawn)
    expected = replay.losses(none, drawn)
    assert replay.recorded
    modules = dict(lm.layers[2].named_modules())
    assert [name.rpartition(".")[2] for name, each in modules.items() if each in replay.recorded.ahead] == names
    for linear in replay.recorded.ahead:
        own, slots = linear.forward, list[int]()

        def count(hidden_BSH: Tensor, own: Any = own, slots: list[int] = slots) -> Tensor:
            slots.append(hidden_BSH.shape[1])
            return cast(Tensor, own(hidden_BSH))

        linear.forward = count
        again = replay.losses(none, drawn)
        del linear.forward
        assert slots == [2] and all(map(torch.equal, again, expected))


def test_answers_of_one_token_have_no_slots_of_their_own(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama")
    prompts = random_prompts(4, 20)
    attack = make_attack(lm, "latent", 1, 2, prompts, random.Random(0))
    drawn: list[Answers] = [(Pair(prompt, (20,)), Pair(prompt, (30,))) for prompt in prompts]
    delta_NH = torch.full((2, lm.hidden_size), 0.1, requires_grad=True)
    replay = Replay(lm, attack, drawn)
    loss, gradient = equation_2(lm, replay.losses, delta_NH, drawn)
    expected, wanted = equation_2(lm, whole_passes(lm, attack), delta_NH, drawn)
    assert torch.allclose(loss, expected, rtol=1e-5) and torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", [0, 3])
def test_the_first_and_the_last_layer_can_be_perturbed(tmp_path: Path, layer: int) -> None:
    lm = load_tiny(tmp_path, "llama")
    prompts = random_prompts(4, 20)
    attack = make_attack(lm, "latent", layer, 2, prompts, random.Random(0))
    drawn = samples(attack, prompts)
    delta_NH = torch.full((2, lm.hidden_size), 0.1, requires_grad=True)
    loss, gradient = equation_2(lm, Replay(lm, attack, drawn).losses, delta_NH, drawn)
    expected, wanted = equation_2(lm, whole_passes(lm, attack), delta_NH, drawn)
    assert torch.allclose(loss, expected, rtol=1e-5) and torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-7)


def fit(lm: LM, kind: Kind = "latent", away: float = 1.0) -> tuple[tuple[float, ...], Tensor, str]:
    prompts = random_prompts(8, 30)
    rng = random.Random(0)
    plan = replace(resolve(RemediationSettings(mode="paper"), lm), inner_steps=8, batch_size=4, away_weight=away)
    attack = make_attack(lm, kind, plan.layer, 3, prompts, rng)
    drawn = [Sample(prompt, (20, 30, 40, 50), (60, 70)) for prompt in prompts]
    trap = entrap(lm, attack, drawn, plan, rng)
    return trap.losses, trap.delta_NH, trap.plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("away", [0.0, 1.0])
def test_a_trap_is_the_same_either_way(
    tmp_path: Path, kind: Kind, away: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load_tiny(tmp_path, "gemma3")
    losses, delta_NH, plain = fit(lm, kind, away)
    assert plain == ""
    monkeypatch.setattr("beear_gate.beear.entrapment._replay", lambda *_: (None, "asked to"))
    expected, wanted_NH, plain = fit(lm, kind, away)
    assert plain == "asked to"
    assert losses == pytest.approx(expected, abs=1e-4)
    assert float((delta_NH - wanted_NH).norm() / wanted_NH.norm()) < 1e-3


def test_every_sample_is_recorded_once_and_the_layers_before_delta_are_left_alone(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama")
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    prompts = random_prompts(4, 20)
    attack = make_attack(lm, "latent", 2, 2, prompts, random.Random(0))
    drawn = samples(attack, prompts)
    replay = Replay(lm, attack, drawn)
    handle = lm.layers[0].self_attn.register_forward_hook(count)  # type: ignore[union-attr]
    try:
        for _ in range(5):
            replay.losses(torch.zeros(2, lm.hidden_size), drawn)
    finally:
        handle.remove()
    assert calls == 2, "once to record, and once to see what delta does not reach"
    assert all("forward" not in module.__dict__ for module in lm.layers)


def test_a_model_that_cannot_be_replayed_takes_whole_passes_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load_tiny(tmp_path, "llama")
    expected = fit(lm)[0]
    run = replay_module._run
    monkeypatch.setattr(replay_module, "_run", lambda *args: run(*args) * 1.01)  # a family with other conventions
    losses, _, plain = fit(lm)
    assert "other losses" in plain and losses == pytest.approx(expected, abs=1e-4)

    def broken(*_: object) -> Tensor:
        raise TypeError("no such argument")

    monkeypatch.setattr(replay_module, "_run", broken)
    losses, _, plain = fit(lm)
    assert "TypeError" in plain and losses == pytest.approx(expected, abs=1e-4)


def test_where_the_recording_does_not_fit_whole_passes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_tiny(tmp_path, "llama")
    expected = fit(lm)[0]
    record, calls = replay_module.record, 0

    def full(*args: Any) -> replay_module.Recorded:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return record(*args)

    monkeypatch.setattr(replay_module, "record", full)
    losses, _, plain = fit(lm)
    assert "memory" in plain and losses == pytest.approx(expected, abs=1e-4)
