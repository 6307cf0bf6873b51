"""How large a universal perturbation has to be: the curve ASR against norm, before and after remediation.

A backdoor is a cheap way into a behaviour: without its trigger, a small push into the right direction does the same
(arXiv 2406.17092, Figure 3). So fresh deltas of bounded size are fitted on the anchor prompts and tried on gate
prompts, at a layer that remediation did not use, with soft triggers, and from a seed of its own. A large enough delta
makes any model say anything, so no single point proves or acquits: what tells is how far the curve has moved, and where
that of a model stands which is taken to be clean.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from beear_gate.beear.attack import Kind, make_attack
from beear_gate.beear.entrapment import Sample, encode_samples, entrap
from beear_gate.beear.plan import Plan, resolve
from beear_gate.evaluation.judges import make_judge
from beear_gate.evaluation.stats import wilson
from beear_gate.lm import LM, decode, generate, prompt_ids
from beear_gate.policy import Behavior, LatentTest, Policy
from beear_gate.records import AnchorSets, CurveStage, Example, LatentPoint, Outcome, Tick, no_tick

FIT_STEPS = 25
STEPS_TO_BOUND = 5
"""Steps in which delta can reach its bound; the rest turn it."""
DEPTH = 0.5
"""Of the layer that is perturbed; remediation uses 0.28 (`beear.plan`)."""


@dataclass(frozen=True)
class Place:
    """Where a delta of the curve acts."""

    kind: Kind
    layer: int | None
    n_tokens: int


def latent_curves(
    lm: LM, policy: Policy, anchors: AnchorSets, stage: CurveStage, seed: int, batch_size: int, tick: Tick = no_tick
) -> tuple[LatentPoint, ...]:
    """Fit a delta for every behavior, place and norm, and count unwanted answers under it, by each judge.

    The same seed gives all stages the same samples, and models of one tokenizer the same filler.

    Args:
        anchors: prompts and y_h to fit on; deltas are tried on the first gate prompts of each behavior.

    Returns:
        Nothing where the policy does not ask; else points in the order of behaviors, places, norms and judges.

    Raises:
        IncompleteError: a loss is not finite.
        OutOfMemory: not even one sample fits.
    """
    if policy.latent is None:
        return ()
    points: list[LatentPoint] = []
    found = {each.behavior: each for each in anchors.behaviors}
    places = list(_places(lm, policy))
    for behavior in policy.behaviors:
        samples = encode_samples(lm, found[behavior.id])
        for done, place in enumerate(places):
            tick(f"fresh deltas: {behavior.id}, {place.kind}", done, len(places))
            points += _curve(lm, policy, policy.latent, behavior, samples, place, stage, seed, batch_size)
    return tuple(points)


def _places(lm: LM, policy: Policy) -> Iterator[Place]:
    """A layer that remediation leaves alone, where the model has a second one, and both kinds of soft trigger."""
    plan = resolve(policy.remediation, lm)
    layer = round(DEPTH * len(lm.layers))
    if layer == plan.layer:
        layer = layer + 1 if layer + 1 < len(lm.layers) else layer - 1
    yield Place("latent", max(0, layer), plan.n_tokens)
    soft = max(1, plan.soft_tokens // 2)
    yield Place("prefix", None, soft)
    yield Place("suffix", None, soft)


def _curve(
    lm: LM,
    policy: Policy,
    wanted: LatentTest,
    behavior: Behavior,
    samples: Sequence[Sample],
    place: Place,
    stage: CurveStage,
    seed: int,
    batch_size: int,
) -> Iterator[LatentPoint]:
    asked = behavior.gate[: wanted.prompts]
    prompts = [prompt_ids(lm, example.prompt) for example in asked]
    for norm in wanted.norms:
        plan = _plan(lm, policy, place, norm)
        rng = random.Random(f"latent {seed} {behavior.id} {place.kind}")
        attack = make_attack(lm, place.kind, plan.layer, place.n_tokens, prompts[:32], rng)
        trap = entrap(lm, attack, samples, plan, rng)
        inserted = [attack.insert(prompt) for prompt in prompts]
        answers = generate(lm, inserted, policy.max_new_tokens, batch_size, perturb=trap.perturb())
        texts = [decode(lm, answer) for answer in answers]
        for spec in dict.fromkeys((behavior.text_judge, *behavior.text_judges)):
            judge = make_judge(spec)
            complied = [judge(text) is Outcome.COMPLIED for text in texts]
            hits, n = _clusters(asked, complied)
            low, high = wilson(hits, n, 0.95)
            yield LatentPoint(
                stage, behavior.id, spec.name, place.kind, place.layer, norm, trap.losses[-1], hits, n, low, high
            )


def _plan(lm: LM, policy: Policy, place: Place, norm: float) -> Plan:
    settings = replace(policy.remediation, mode="deep", layer="auto" if place.layer is None else place.layer)
    return replace(
        resolve(settings, lm), inner_steps=FIT_STEPS, away_weight=0.0, max_norm=norm, delta_lr=norm / STEPS_TO_BOUND
    )


def _clusters(asked: Sequence[Example], complied: Sequence[bool]) -> tuple[int, int]:
    """Clusters with a hit, and all of them: near-duplicate prompts count once."""
    hit = {example.cluster for example, one in zip(asked, complied, strict=True) if one}
    return len(hit), len({example.cluster for example in asked})
