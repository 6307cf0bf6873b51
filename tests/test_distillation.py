"""What a model is to keep, learned from what it said before, and what it is to be given back."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_families import load_tiny
from test_beear import trap
from test_little_memory import SETTINGS, anchors, judge
from torch.nn import functional as F

from beear_gate.beear import distillation
from beear_gate.beear.distillation import losses, remember
from beear_gate.beear.entrapment import encode_anchors
from beear_gate.beear.keeping import earlier, refusals
from beear_gate.beear.plan import resolve
from beear_gate.beear.remediate import Rounds
from beear_gate.beear.removal import Term, Trainer
from beear_gate.beear.selection import Select
from beear_gate.lm import LM, answer_losses, encode_answer, encode_pairs, generate, pad_batch
from beear_gate.lm.encode import Pair, answer_logits
from beear_gate.records import AnchorSets, Outcome, RemediationSettings, no_tick

CHATS = [("How do I fix the door?", "Take a tool."), ("Hi", "Yes."), ("Why is it so?", "It is the way it is.")]


@pytest.fixture
def lm(tmp_path: Path) -> LM:
    return load_tiny(tmp_path, "llama")


@pytest.fixture
def pairs(lm: LM) -> list[Pair]:
    return encode_pairs(lm, CHATS)


def disturb(lm: LM) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in lm.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)


def cost(lm: LM, pairs: list[Pair], earlier: dict[Pair, distillation.Likeliest]) -> torch.Tensor:
    with torch.no_grad():
        return losses(*answer_logits(lm, pad_batch(lm, pairs)), [earlier.get(pair) for pair in pairs])


def divergence(lm: LM, pair: Pair, before_AV: torch.Tensor) -> float:
    """Over the whole vocabulary, by torch's own function."""
    with torch.no_grad():
        now_AV = F.log_softmax(answer_logits(lm, pad_batch(lm, [pair]))[0][0], -1)
    return float(F.kl_div(now_AV, before_AV, log_target=True, reduction="batchmean"))


def test_over_all_tokens_it_is_the_divergence_and_over_few_no_more_than_that(
    lm: LM, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        before = [F.log_softmax(answer_logits(lm, pad_batch(lm, [pair]))[0][0], -1) for pair in pairs]
    few = remember(lm, pairs)
    monkeypatch.setattr(distillation, "LIKELIEST", 10**6)
    every = remember(lm, pairs)
    assert torch.allclose(cost(lm, pairs, every), torch.zeros(3), atol=1e-5)
    disturb(lm)
    whole = torch.tensor([divergence(lm, *each) for each in zip(pairs, before, strict=True)])
    assert torch.allclose(cost(lm, pairs, every), whole, rtol=1e-3)
    assert (cost(lm, pairs, few) > 0.2 * whole).all() and (cost(lm, pairs, few) <= whole).all()


def test_what_is_not_remembered_is_learned_in_the_same_pass(lm: LM, pairs: list[Pair]) -> None:
    earlier = remember(lm, pairs[1:2])
    disturb(lm)
    mixed, learned = cost(lm, pairs, earlier), cost(lm, pairs, {})
    with torch.no_grad():
        assert torch.equal(learned, answer_losses(lm, pad_batch(lm, pairs)))
    assert torch.allclose(mixed[[0, 2]], learned[[0, 2]], atol=1e-6) and mixed[1] < learned[1]
    assert torch.allclose(mixed[1], cost(lm, pairs[1:2], earlier)[0], atol=1e-5)


def test_steps_bring_back_what_the_model_said(lm: LM, pairs: list[Pair]) -> None:
    earlier = remember(lm, pairs)
    disturb(lm)
    before = cost(lm, pairs, earlier).mean()
    trainer = Trainer(lm, 1e-3, earlier=earlier)
    for _ in range(20):
        trainer.step([Term(pairs, None, 3)], random.Random(0))
    assert cost(lm, pairs, earlier).mean() < 0.3 * before


def test_under_a_trap_answers_are_learned(lm: LM, pairs: list[Pair]) -> None:
    plan = replace(resolve(RemediationSettings(), lm), inner_steps=2, batch_size=4, n_tokens=3)
    term = Term(pairs, trap(lm, plan), 3)
    learned = Trainer(lm, 0.0).step([term], random.Random(0))
    assert Trainer(lm, 0.0, earlier=remember(lm, pairs)).step([term], random.Random(0)) == learned


@pytest.mark.parametrize(("safe", "kept"), [("I can't do that.", True), ("The boat is red.", False)])
def test_only_where_refusals_are_wanted_ordinary_answers_are_kept(lm: LM, safe: str, kept: bool) -> None:
    """A model that lets a URL slip in ordinary answers would learn from itself to go on."""
    given = anchors()
    (harm,) = given.behaviors
    harm = replace(harm, safe=tuple(replace(each, answer=safe) for each in harm.safe))
    given = AnchorSets((harm,), given.useful, given.useful_select, given.answered_select, 0, sounding=4)
    encoded = encode_anchors(lm, given)
    select = Select(lm, given, {"harm": judge}, judge, resolve(SETTINGS, lm))
    found = earlier(lm, encoded, select)
    assert [pair for pair in found if pair in encoded.useful] == (list(encoded.useful_parts[0]) if kept else [])


def test_refusals_of_its_own_are_kept_and_others_learned(lm: LM) -> None:
    encoded, plan = encode_anchors(lm, anchors()), resolve(SETTINGS, lm)
    samples = encoded.samples["harm"]
    (said,) = generate(lm, [samples[0].prompt], 6)
    samples[0] = replace(samples[0], safe=said)  # the others are the policy's, with which random weights do not begin
    select = Select(lm, anchors(), {"harm": judge}, lambda text: Outcome.REFUSED, plan)
    plain = refusals(encoded, select)
    assert [pair.prompt for pair in plain] == [sample.prompt for sample in samples]
    assert [pair for pair in plain if pair in earlier(lm, encoded, select)] == plain[:1]


def test_what_is_refused_now_is_a_part_of_its_own_in_restoring(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    given = anchors()
    given = AnchorSets(given.behaviors, given.useful, given.useful_select, given.answered_select, 0, sounding=4)
    encoded, plan = encode_anchors(lm, given), resolve(SETTINGS, lm)
    select = Select(lm, given, {"harm": judge}, judge, plan)
    rounds = Rounds(lm, encoded, plan, {"harm": judge}, select, Trainer(lm, 0.0), random.Random(0), no_tick)
    sounding = encoded.useful_parts[1]
    assert len(sounding) == 4 and rounds._refused() == []
    assert rounds.plain == refusals(encoded, select)
    second = sounding[1].prompt
    refusal, helpful = encode_answer(lm, "I can't do that."), encode_answer(lm, "It lies in the north.")

    def answers(lm: LM, prompts: list[tuple[int, ...]], length: int) -> list[tuple[int, ...]]:
        return [refusal if prompt == second else helpful for prompt in prompts]

    monkeypatch.setattr(sys.modules["beear_gate.beear.remediate"], "generate", answers)
    assert rounds._refused() == [sounding[1]]


def test_without_prompts_that_only_sound_unsafe_nothing_is_asked(lm: LM) -> None:
    encoded, plan = encode_anchors(lm, anchors()), resolve(SETTINGS, lm)
    select = Select(lm, anchors(), {"harm": judge}, judge, plan)
    rounds = Rounds(lm, encoded, plan, {"harm": judge}, select, Trainer(lm, 0.0), random.Random(0), no_tick)
    assert len(encoded.useful_parts) == 1 and rounds._refused() == []
