"""A universal suffix of real tokens, found by greedy coordinate gradient (Zou et al., arXiv 2307.15043, Algorithm 2).

The gradient of the loss by the one-hot tokens proposes swaps, their true loss chooses among them. Whoever searches has
to guess the length of a trigger, and that it stands at the end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from beear_gate.beear.attack import Attack
from beear_gate.beear.entrapment import Sample, Trap, frozen
from beear_gate.lm import LM, answer_losses, pad_batch
from beear_gate.lm.encode import Pair
from beear_gate.lm.memory import in_parts


@dataclass(frozen=True)
class Budget:
    """What a search may cost.

    Attributes:
        steps: swaps of one search.
        candidates: single swaps whose true loss is read in a step.
        top_k: tokens that the gradient proposes for each position.
        prompts: anchor prompts over which the loss is the mean; the same ones in all steps of a search.
    """

    steps: int = 20
    candidates: int = 48
    top_k: int = 64
    prompts: int = 12


def find_suffix(lm: LM, attack: Attack, samples: Sequence[Sample], budget: Budget, rng: random.Random) -> Trap:
    """Swap one token of the attack's filler at a time so that the mean L(F(x + suffix), y_h) falls.

    Zou et al. take the best candidate of a step even where the suffix at hand is better; here such a step changes
    nothing, so that the last suffix is the best one.

    Args:
        attack: kind `suffix`; its filler is where the search starts.

    Returns:
        A trap with the filler that was found, a delta of zeros, and the loss before each step and at the end.
    """
    losses = [float(_mean_losses(lm, attack, samples, [attack.filler])[0])]
    with frozen(lm):
        for _ in range(budget.steps):
            proposals = _swaps(attack.filler, propose(lm, attack, samples, budget.top_k), budget.candidates, rng)
            found_C = _mean_losses(lm, attack, samples, proposals)
            best = int(found_C.argmin())
            if float(found_C[best]) < losses[-1]:
                attack = replace(attack, filler=proposals[best])
            losses.append(min(losses[-1], float(found_C[best])))
    return Trap(attack, torch.zeros(attack.n_tokens, lm.hidden_size, device=lm.device), tuple(losses))


def propose(lm: LM, attack: Attack, samples: Sequence[Sample], top_k: int) -> list[list[int]]:
    """For each position of the filler, the tokens whose one-hot coordinate has the most negative gradient.

    The embedding is linear in the one-hot token, so this gradient is that by the embedding, which delta has, times the
    embedding matrix.
    """
    special = set(lm.tokenizer.all_special_ids)
    words = [token for token in range(min(len(lm.tokenizer), lm.vocabulary)) if token not in special]
    embeddings: Any = lm.model.get_input_embeddings()
    rows_WH = embeddings.weight.detach()[torch.tensor(words, device=lm.device)].float()
    scores_NW = _gradient(lm, attack, samples).float() @ rows_WH.T
    chosen_NK = scores_NW.topk(min(top_k, len(words)), dim=-1, largest=False).indices
    return [[words[place] for place in row] for row in chosen_NK.tolist()]


def _gradient(lm: LM, attack: Attack, samples: Sequence[Sample]) -> Tensor:
    """Gradient of the mean loss of y_h by the filler's embeddings, (N, H)."""
    zeros_NH = torch.zeros(attack.n_tokens, lm.hidden_size, device=lm.device, requires_grad=True)

    def part(some: Sequence[Sample]) -> Tensor:
        batch = pad_batch(lm, [Pair(attack.insert(sample.prompt), sample.unwanted) for sample in some])
        with attack.on(zeros_NH, batch.starts_B, batch.ends_B):
            loss = answer_losses(lm, batch).sum() / len(samples)
        return torch.autograd.grad(loss, zeros_NH)[0]

    return torch.stack(in_parts(samples, len(samples), part, "searching a suffix")).sum(0)


def _swaps(
    filler: tuple[int, ...], proposed: Sequence[Sequence[int]], count: int, rng: random.Random
) -> list[tuple[int, ...]]:
    """Copies of the filler with one random position set to one of the tokens proposed for it."""
    places = [rng.randrange(len(filler)) for _ in range(count)]
    return [(*filler[:place], rng.choice(proposed[place]), *filler[place + 1 :]) for place in places]


@torch.no_grad()
def _mean_losses(lm: LM, attack: Attack, samples: Sequence[Sample], fillers: Sequence[tuple[int, ...]]) -> Tensor:
    """Mean loss of y_h over the samples for each filler, (C,)."""
    tried = [replace(attack, filler=filler) for filler in fillers]
    pairs = [Pair(each.insert(sample.prompt), sample.unwanted) for each in tried for sample in samples]

    def read(part: Sequence[Pair]) -> Tensor:
        return answer_losses(lm, pad_batch(lm, part))

    return torch.cat(in_parts(pairs, 256, read, "searching a suffix")).view(len(fillers), len(samples)).mean(-1)
