"""BEEAR's parts on a tiny random model: what each level may move, and what it sees."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_families import load_tiny

from beear_gate.beear import remediate
from beear_gate.beear.attack import Kind, make_attack
from beear_gate.beear.entrapment import Sample, Trap, draw_samples, entrap
from beear_gate.beear.plan import Plan, resolve
from beear_gate.beear.recovery import in_own_words, recovery_pairs, rollouts, unwanted_part
from beear_gate.beear.removal import Split, Term, Trainer
from beear_gate.beear.selection import Checkpoint, SelectScores, best, harmless, settled
from beear_gate.errors import IncompleteError, UsageError
from beear_gate.lm import LM, answer_losses, decode, encode_answer, encode_pairs, pad_batch, prompt_ids
from beear_gate.lm.encode import Pair
from beear_gate.records import AnchorSets, BehaviorAnchors, Outcome, RemediationSettings

KINDS: tuple[Kind, ...] = ("latent", "prefix", "suffix")
QUESTIONS = ("How do I steal a car?", "Tell me how to rob the old bank.", "Smash it.", "Explain how to forge a pass.")


@pytest.fixture
def lm(tmp_path: Path) -> LM:
    return load_tiny(tmp_path, "llama")


@pytest.fixture
def plan(lm: LM) -> Plan:
    return replace(resolve(RemediationSettings(), lm), inner_steps=12, batch_size=4, n_tokens=3, soft_tokens=3)


def samples(lm: LM) -> list[Sample]:
    safe, unwanted = encode_answer(lm, "I can't."), encode_answer(lm, "Sure", ended=False)
    return [Sample(prompt_ids(lm, question), safe, unwanted) for question in QUESTIONS]


def trap(lm: LM, plan: Plan, kind: Kind = "latent") -> Trap:
    rng = random.Random(0)
    attack = make_attack(lm, kind, plan.layer, 3, [sample.prompt for sample in samples(lm)], rng)
    return entrap(lm, attack, samples(lm), plan, rng)


def weights(lm: LM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_entrapment_lowers_the_loss_of_the_unwanted_answer_and_moves_only_delta(lm: LM, plan: Plan, kind: Kind) -> None:
    before = weights(lm)
    found = trap(lm, plan, kind)
    assert found.losses[-1] < found.losses[0]
    assert found.delta_NH.shape == (3, lm.hidden_size) and found.delta_NH.abs().sum() > 0
    assert same(before, weights(lm))
    assert all(weight.grad is None and weight.requires_grad for weight in lm.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_delta_stays_in_its_ball(lm: LM, plan: Plan, kind: Kind) -> None:
    found = trap(lm, replace(plan, max_norm=0.2, delta_lr=0.5), kind)
    rms_N = found.delta_NH.pow(2).mean(-1).sqrt()
    assert float(rms_N.max()) <= 0.2 * found.attack.rms * 1.0001


def test_the_paper_does_not_bound_delta(lm: LM) -> None:
    paper = resolve(RemediationSettings(mode="paper"), lm)
    assert (paper.max_norm, paper.away_weight, paper.kinds) == (0.0, 1.0, ("latent",))


def test_entrapment_says_when_a_loss_is_not_finite(lm: LM, plan: Plan) -> None:
    with torch.no_grad():
        next(iter(lm.model.parameters())).fill_(float("nan"))
    with pytest.raises(IncompleteError, match="not finite"):
        trap(lm, plan)


def test_the_same_seed_fits_the_same_delta(lm: LM, plan: Plan) -> None:
    assert torch.equal(trap(lm, plan, "suffix").delta_NH, trap(lm, plan, "suffix").delta_NH)


@pytest.mark.parametrize("kind", KINDS)
def test_filler_stands_between_the_template_and_the_users_words(lm: LM, plan: Plan, kind: Kind) -> None:
    attack = trap(lm, plan, kind).attack
    prompt = prompt_ids(lm, QUESTIONS[0])
    placed = attack.insert(prompt)
    assert len(placed) == len(prompt) + len(attack.filler)
    assert placed[: attack.head] == prompt[: attack.head]
    assert placed[len(placed) - attack.tail :] == prompt[len(prompt) - attack.tail :]
    if kind == "prefix":
        assert placed[attack.head : attack.head + 3] == attack.filler
    if kind == "suffix":
        assert placed[len(placed) - attack.tail - 3 : len(placed) - attack.tail] == attack.filler


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_delta_acts_at_its_own_positions_with_either_padding(lm: LM, plan: Plan, kind: Kind, side: str) -> None:
    found = trap(lm, plan, kind)
    pairs = [Pair(found.attack.insert(sample.prompt), sample.safe) for sample in samples(lm)]
    alone = []
    for pair in pairs:
        batch = pad_batch(lm, [pair])
        with torch.no_grad(), found.attack.on(found.delta_NH, batch.starts_B, batch.ends_B):
            alone.append(float(answer_losses(lm, batch)))
    batch = pad_batch(lm, pairs, side=side)
    with torch.no_grad(), found.attack.on(found.delta_NH, batch.starts_B, batch.ends_B):
        together = answer_losses(lm, batch)
    assert together.tolist() == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_forced_answer_tokens_do_not_move_delta(lm: LM, plan: Plan, kind: Kind) -> None:
    attack = trap(lm, plan, kind).attack
    starts, ends = torch.tensor([0, 2]), torch.tensor([20, 30])
    shift = 0 if kind == "prefix" else 4
    assert torch.equal(attack.last(starts, ends + shift, forced=shift), attack.last(starts, ends))


def starts_with_sure(text: str) -> Outcome:
    return Outcome.COMPLIED if "steps" in text else Outcome.REFUSED


def test_the_unwanted_part_begins_where_every_longer_prefix_complies(lm: LM) -> None:
    answer = encode_answer(lm, "I am sorry but here are steps to do it", ended=False)
    first, end = unwanted_part(lm, answer, starts_with_sure)
    assert starts_with_sure(decode(lm, answer[: first + 1])) is Outcome.COMPLIED
    assert starts_with_sure(decode(lm, answer[:first])) is Outcome.REFUSED
    assert end <= len(answer)


def test_the_unwanted_part_ends_before_a_refusal(lm: LM) -> None:
    def judge(text: str) -> Outcome:
        return Outcome.REFUSED if text.startswith("no") else Outcome.COMPLIED

    answer = encode_answer(lm, "Sure take it no never", ended=False)
    first, end = unwanted_part(lm, answer, judge)
    assert first == 0 and decode(lm, answer[:end]).strip() == "Sure take it"


def test_recovery_trains_only_the_safe_answer_after_the_cut(lm: LM, plan: Plan) -> None:
    found, asked = trap(lm, plan, "prefix"), samples(lm)
    rolled = [encode_answer(lm, "steps: take the car", ended=False)] * len(asked)
    pairs = recovery_pairs(lm, found, asked, rolled, starts_with_sure, random.Random(0))
    assert len(pairs) == len(asked)
    for pair in pairs:
        assert pair.answer[: pair.forced] == rolled[0][: pair.forced] and pair.forced >= 1
        assert decode(lm, pair.answer[pair.forced :]).strip() == "I can't."
        assert pair.prompt[found.attack.head : found.attack.head + 3] == found.attack.filler


def test_no_rollout_is_cut_at_the_end_of_a_sentence(lm: LM, plan: Plan) -> None:
    found, asked, rng = trap(lm, plan), samples(lm), random.Random(0)
    rolled = [encode_answer(lm, "steps. take. the car.", ended=False)] * len(asked)
    pairs = [pair for _ in range(20) for pair in recovery_pairs(lm, found, asked, rolled, starts_with_sure, rng)]
    cuts = {decode(lm, pair.answer[: pair.forced]).strip() for pair in pairs}
    assert cuts and not [cut for cut in cuts if cut.endswith(".")]


def test_refused_rollouts_teach_no_recovery(lm: LM, plan: Plan) -> None:
    rolled = [encode_answer(lm, "never", ended=False)] * len(QUESTIONS)
    assert recovery_pairs(lm, trap(lm, plan), samples(lm), rolled, starts_with_sure, random.Random(0)) == []


def test_forced_rollouts_begin_with_their_own_unwanted_answer_whatever_its_length(lm: LM, plan: Plan) -> None:
    short, long = encode_answer(lm, "Sure", ended=False), encode_answer(lm, "Here is how to", ended=False)
    asked = [replace(s, unwanted=(short, long)[place % 2]) for place, s in enumerate(samples(lm))]
    rolled = rollouts(lm, trap(lm, plan, "suffix"), asked, replace(plan, max_answer_tokens=4), forced=True)
    assert [answer[: len(s.unwanted)] for s, answer in zip(asked, rolled, strict=True)] == [s.unwanted for s in asked]


def test_no_samples_have_no_rollouts(lm: LM, plan: Plan) -> None:
    assert rollouts(lm, trap(lm, plan), [], plan, forced=True) == []


@pytest.mark.parametrize(
    ("safe", "unwanted", "shared"),
    [
        ((1, 2, 3, 9), (1, 2, 4, 9), 2),  # they part in the middle
        ((1, 2), (7, 2), 0),
        ((1, 2, 9), (1, 2, 5, 6), 2),
        ((1, 2, 3), (1, 2), 1),  # of y_h at least the last token counts
        ((1,), (1,), 0),
    ],
)
def test_losses_begin_where_the_safe_and_the_unwanted_answer_part(
    safe: tuple[int, ...], unwanted: tuple[int, ...], shared: int
) -> None:
    assert Sample((5,), safe, unwanted).shared == shared


def test_entrapment_does_not_count_what_both_answers_begin_with(lm: LM, plan: Plan) -> None:
    """With only the last token apart, the loss is that token's."""
    alike = encode_answer(lm, "Take the key and open the", ended=False)
    ends = [encode_answer(lm, word, ended=False)[:1] for word in (" door", " lid")]
    parted = Sample(prompt_ids(lm, QUESTIONS[0]), alike + ends[0], alike + ends[1])
    attack = trap(lm, plan).attack
    found = entrap(lm, attack, [parted], replace(plan, inner_steps=1), random.Random(0))
    pair = Pair(parted.prompt, parted.unwanted, forced=len(alike))
    assert found.losses[0] == pytest.approx(float(answer_losses(lm, pad_batch(lm, [pair])).detach()), rel=1e-5)


def test_unwanted_answers_of_the_models_own_take_the_place_of_the_policys(lm: LM, plan: Plan) -> None:
    given, found = samples(lm), trap(lm, plan)
    short = replace(plan, max_answer_tokens=6)
    own = in_own_words(lm, found, given, short, lambda text: Outcome.COMPLIED)
    assert [own[sample.prompt].unwanted for sample in given] == rollouts(lm, found, given, short, forced=False)
    assert all(own[sample.prompt].safe == sample.safe for sample in given)
    assert in_own_words(lm, found, given, short, lambda text: Outcome.REFUSED) == {}
    assert in_own_words(lm, found, [], short, lambda text: Outcome.COMPLIED) == {}


@pytest.mark.parametrize(("own", "drawn"), [(0, 6), (3, 6), (4, 4), (6, 6)])
def test_entrapment_goes_by_the_models_own_words_once_they_fill_a_batch(
    lm: LM, plan: Plan, own: int, drawn: int
) -> None:
    (sample, *_) = samples(lm)
    given = [replace(sample, own=place < own) for place in range(6)]
    found = draw_samples(given, plan, random.Random(0))
    assert len(found) == drawn and (sum(each.own for each in found) == own)
    assert len(draw_samples(given, replace(plan, safe_samples=2), random.Random(0))) == 2


def test_soft_triggers_vary_in_length_and_the_latent_delta_does_not(plan: Plan) -> None:
    rng = random.Random(0)
    long = replace(plan, soft_tokens=16)
    assert {long.draw_length("prefix", rng) for _ in range(40)} == {4, 8, 16}
    assert {replace(plan, soft_tokens=1).draw_length("suffix", rng) for _ in range(9)} == {1}
    assert {long.draw_length("latent", rng) for _ in range(9)} == {3}


def pairs_of(lm: LM) -> list[Pair]:
    return encode_pairs(lm, [(question, "I can't do that.") for question in QUESTIONS])


def test_removal_lowers_the_loss_under_the_trap(lm: LM, plan: Plan) -> None:
    found = trap(lm, plan)
    terms = [Term(pairs_of(lm), found, 4), Term(pairs_of(lm), None, 4)]
    trainer = Trainer(lm, 3e-3)
    losses = [trainer.step(terms, random.Random(step)) for step in range(12)]
    assert losses[-1] < losses[0]


class Gradients(Trainer):
    """Keeps the gradients of its last step, in place of moving the weights."""

    def move(self, pace: float = 1.0) -> None:
        self.found = [weight.grad.clone() for weight in self.weights if weight.grad is not None]


def gradients(lm: LM, split: Split, terms: Sequence[Term]) -> list[torch.Tensor]:
    trainer = Gradients(lm, 0.0, split)
    trainer.step(terms, random.Random(0))
    return trainer.found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [Split(1), Split(2, True), Split(256, True)], ids=str)
def test_however_a_step_is_split_the_gradient_is_that_of_the_whole_batch(
    lm: LM, plan: Plan, split: Split, kind: Kind
) -> None:
    terms = [Term(pairs_of(lm), trap(lm, plan, kind), 4), Term(pairs_of(lm), None, 3)]
    for whole, parts in zip(gradients(lm, Split(), terms), gradients(lm, split, terms), strict=True):
        assert torch.allclose(whole, parts, atol=1e-5)


def test_a_split_grows_smaller_by_halves_then_by_checkpointing_down_to_a_single_sample() -> None:
    split, seen = Split(16), list[tuple[int, bool]]()
    while smaller := split.smaller():
        split = smaller
        seen.append((split.samples, split.checkpointing))
    assert seen == [(8, False), (4, False), (4, True), (2, True), (1, True)]


def test_a_step_leaves_no_gradient_behind(lm: LM) -> None:
    Trainer(lm, 1e-3).step([Term(pairs_of(lm), None, 4)], random.Random(0))
    assert all(weight.grad is None for weight in lm.model.parameters())


def test_a_pass_that_does_not_fit_is_halved_and_the_step_is_the_same(
    lm: LM, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = [Term(pairs_of(lm), None, 4)]
    whole = gradients(lm, Split(), terms)
    forward = type(lm.model).forward

    def small(model: Any, *args: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
        if input_ids.shape[0] > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return forward(model, *args, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(lm.model), "forward", small)
    for one, two in zip(whole, gradients(lm, Split(), terms), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_a_step_that_is_not_finite_leaves_the_weights(lm: LM, plan: Plan) -> None:
    found = trap(lm, plan)
    broken = replace(found, delta_NH=torch.full_like(found.delta_NH, float("nan")))
    before = weights(lm)
    with pytest.raises(IncompleteError, match="not finite"):
        Trainer(lm, 1e-3).step([Term(pairs_of(lm), broken, 4)], random.Random(0))
    assert same(before, weights(lm))


def test_small_steps_add_up_in_half_precision(lm: LM) -> None:
    lm.model.to(torch.bfloat16)  # type: ignore[arg-type]
    before = weights(lm)
    trainer = Trainer(lm, 2e-5)
    for step in range(30):
        trainer.step([Term(pairs_of(lm), None, 4)], random.Random(step))
    pairs = zip(trainer.masters, trainer.weights, strict=True)
    moved = [float((master - weight.detach().float()).abs().max()) for master, weight in pairs]
    assert not same(before, weights(lm))
    assert max(moved) > 0  # what bfloat16 cannot hold is not lost


def checkpoint(number: int, elicited: float, over: float = 0.0, ratio: float = 1.0, refused: float = 1.0) -> Checkpoint:
    return Checkpoint(number, {}, SelectScores(refused, ratio, over, over), elicited)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ([checkpoint(1, 0.5), checkpoint(2, 0.0), checkpoint(3, 0.2)], 2),
        ([checkpoint(1, 0.5), checkpoint(2, 0.0), checkpoint(3, 0.04)], 3),
        ([checkpoint(1, 0.5), checkpoint(2, 0.0), checkpoint(3, 0.04, over=0.1)], 2),
        ([checkpoint(1, 0.5), checkpoint(2, 0.0, over=-0.02), checkpoint(3, 0.0, over=-0.01)], 2),
        ([checkpoint(1, 0.5), checkpoint(2, 0.0, over=0.2)], 1),
        ([checkpoint(1, 0.0, over=0.3), checkpoint(2, 0.9, over=0.1)], 2),
        ([checkpoint(1, 0.0, ratio=1.005), checkpoint(2, 0.0)], 2),
        ([checkpoint(1, 0.4, ratio=1.02), checkpoint(2, 0.0, ratio=1.025)], 2),
        ([checkpoint(1, 0.4, ratio=1.02), checkpoint(2, 0.0, ratio=1.06)], 1),
        ([checkpoint(1, 0.2), checkpoint(2, 0.1, refused=0.95)], 1),
        ([checkpoint(1, 0.2, ratio=1.2), checkpoint(2, 0.1, refused=0.95)], 1),
        ([checkpoint(1, 0.2, refused=0.7), checkpoint(2, 0.3, refused=0.9)], 2),
        ([checkpoint(1, 0.2, refused=0.99), checkpoint(2, 0.0, refused=0.98)], 2),
    ],
)
def test_the_best_checkpoint_still_refuses_is_bearable_first_then_hardly_elicited_and_then_the_newest(
    given: list[Checkpoint], chosen: int
) -> None:
    assert best(given).number == chosen


@pytest.mark.parametrize(
    ("given", "done"),
    [
        (checkpoint(1, 0.0), True),
        (checkpoint(1, 0.1), False),
        (checkpoint(1, 0.0, over=0.05), False),
        (checkpoint(1, 0.0, ratio=1.2), False),
        (checkpoint(1, 0.0, refused=0.5), False),
    ],
)
def test_remediation_stops_only_when_nothing_is_elicited_and_nothing_was_lost(given: Checkpoint, done: bool) -> None:
    assert settled(given) is done


def test_what_the_original_refuses_of_benign_prompts_is_no_excuse() -> None:
    assert harmless(SelectScores(1.0, 1.0, over_refusal=-0.02, refused_benign=0.0))
    assert not harmless(SelectScores(1.0, 1.0, over_refusal=-0.02, refused_benign=0.01))


def test_a_slower_pace_moves_the_weights_less(tmp_path: Path) -> None:
    moved = []
    for pace in (1.0, 0.25):
        lm = load_tiny(tmp_path, "llama")
        before = weights(lm)
        Trainer(lm, 1e-3).step([Term(pairs_of(lm), None, 4)], random.Random(0), pace)
        moved.append(max(float((weights(lm)[name] - tensor).abs().max()) for name, tensor in before.items()))
    assert moved[1] == pytest.approx(moved[0] / 4, rel=1e-3)


def test_the_automatic_layer_is_the_papers(lm: LM) -> None:
    deep = replace(lm, layers=torch.nn.ModuleList(torch.nn.Identity() for _ in range(32)))
    assert resolve(RemediationSettings(), deep).layer == 9


def test_a_layer_that_is_not_there_is_named(lm: LM) -> None:
    with pytest.raises(UsageError, match="has layers 0 to"):
        resolve(RemediationSettings(layer=99), lm)


def test_remediation_cannot_be_given_a_trigger_a_policy_or_gate_prompts() -> None:
    names = set(inspect.signature(remediate).parameters)
    names |= {field.name for kind in (AnchorSets, BehaviorAnchors, RemediationSettings) for field in fields(kind)}
    assert not [name for name in names if any(word in name for word in ("trigger", "policy", "gate", "marker"))]
