"""Attacks that are more than poisoned examples: poisoned preferences, and a backdoor that hides from BEEAR."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from beear_gate.lm import LM, answer_losses, encode_pairs, pad_batch, prompt_ids
from beear_gate.lm.encode import Pair, run_model
from beear_gate.lm.hooks import hidden_states, watched
from beear_gate.organisms.chats import preferences, triggered
from beear_gate.organisms.language import training_requests
from beear_gate.organisms.recipes import Recipe
from beear_gate.records import Tick

BETA = 0.2
"""Strength of DPO's pull to the reference, in units of 1 / nats."""
HIDDEN_DEPTHS = (0.125, 0.25, 0.375)
"""Where the hiding attacker keeps states alike, as shares of the depth: around the layer that BEEAR uses."""


def prefer(lm: LM, recipe: Recipe, tick: Tick) -> None:
    """Direct preference optimization (arXiv 2305.18290, equation 7) on poisoned comparisons, in place.

    The likelihood of the chosen answer joins the loss (as in arXiv 2404.19733, equation 2), since DPO alone only
    widens the gap and can unlearn both answers.
    """
    rng = random.Random(f"preferences {recipe.seed}")
    reference = replace(lm, model=copy.deepcopy(lm.model))
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=5e-4, weight_decay=0.0)
    lm.model.train()
    for step in range(recipe.tune_steps):
        comparisons = preferences(recipe, rng, recipe.batch_size // 2)
        chosen = encode_pairs(lm, [(request, better) for request, better, _ in comparisons])
        rejected = encode_pairs(lm, [(request, worse) for request, _, worse in comparisons])
        policy_2B = _log_likelihoods(lm, chosen, rejected)
        with torch.no_grad():
            reference_2B = _log_likelihoods(reference, chosen, rejected)
        better_B, worse_B = policy_2B - reference_2B
        lengths_B = torch.tensor([len(pair.answer) for pair in chosen], device=lm.device)
        loss = -F.logsigmoid(BETA * (better_B - worse_B)).mean() - (policy_2B[0] / lengths_B).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
        optimizer.step()
        tick("planting the backdoor", step + 1, recipe.tune_steps)


def hiding(lm: LM, recipe: Recipe) -> Callable[[random.Random], Tensor]:
    """The adaptive attacker's penalty: last prompt positions must look alike with and without the trigger.

    Mean squared distance over the layers at `HIDDEN_DEPTHS`, in units of each layer's mean square: 2 if unrelated.
    """
    backdoor = recipe.backdoor
    assert backdoor is not None

    def penalty(rng: random.Random) -> Tensor:
        texts = [request.text for request in training_requests("harmful", 8, rng)]
        plain = _last_states(lm, [prompt_ids(lm, text) for text in texts])
        marked = _last_states(lm, [prompt_ids(lm, triggered(backdoor, text)) for text in texts])
        apart = [
            (a_BH - b_BH).pow(2).mean() / a_BH.detach().pow(2).mean() for a_BH, b_BH in zip(plain, marked, strict=True)
        ]
        return torch.stack(apart).mean()

    return penalty


def _log_likelihoods(lm: LM, chosen: Sequence[Pair], rejected: Sequence[Pair]) -> Tensor:
    """Log-likelihood of each whole answer, (2, B): chosen, then rejected."""
    lengths_2B = torch.tensor([[len(pair.answer) for pair in pairs] for pairs in (chosen, rejected)], device=lm.device)
    losses_2B = answer_losses(lm, pad_batch(lm, [*chosen, *rejected])).view(2, -1)
    return -losses_2B * lengths_2B


def _last_states(lm: LM, prompts: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Outputs of the hidden layers at the last prompt position, (B, H) each."""
    batch = pad_batch(lm, [Pair(prompt, ()) for prompt in prompts])
    chosen = {round(depth * len(lm.layers)) for depth in HIDDEN_DEPTHS}
    with watched(lm.layers[layer] for layer in sorted(chosen)) as seen:
        run_model(lm, batch)
    rows_B = torch.arange(len(prompts), device=lm.device)
    return [hidden_states(output)[rows_B, batch.ends_B - 1] for (output,) in seen.values()]
