"""CROW (ICML 2025, arXiv 2411.12768): clean prompts only, and hidden states that turn little from layer to layer.

Its idea is that a trigger makes the hidden states of consecutive layers disagree. The loss is that of plain fine-tuning
plus alpha times this disagreement, read under a perturbation of the input embeddings that makes it worse.

Built from the paper's description and the authors' trainer (NayMyatMin/CROW, b786381), whose cosine version leaves the
embeddings and the last layer out. CROW trains LoRA adapters at 1e-3 on 100 prompts; here all weights move, at the rate
of `paper` mode, and D_PA is whatever the policy gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from beear_gate.beear.entrapment import frozen
from beear_gate.bench.job import Job
from beear_gate.bench.training import begin, descend, draw, useful_pairs
from beear_gate.lm import LM, Batch, answer_losses, pad_batch
from beear_gate.lm.encode import run_model
from beear_gate.lm.hooks import hidden_states, instead, watched

ALPHA = 5.5
"""Weight of the consistency loss in CROW's main results."""

EPS = 0.1
"""Size of the perturbation in each coordinate of an embedding: absolute, as in CROW, not in units of its RMS."""


def crow(job: Job, alpha: float = ALPHA, eps: float = EPS, steps: int = 120) -> None:
    """Fine-tune on D_PA with consistency regularization; reads neither D_SA nor D_SA-H.

    Args:
        alpha: weight of the consistency loss; CROW takes 11 against targeted refusal.
        eps: bound of the perturbation in each coordinate (L-infinity), in the units of the embeddings.
        steps: each of the batch of `paper` mode.
    """
    plan, trainer, rng = begin(job)
    useful = useful_pairs(job)
    for step in range(steps):
        job.tick("CROW", step, steps)
        batch = pad_batch(job.lm, draw(rng, useful, plan.batch_size))
        shift_BTH = adversarial_shift(job.lm, batch, eps)
        descend(trainer, answer_losses(job.lm, batch).mean() + alpha * inconsistency(job.lm, batch, shift_BTH))


def adversarial_shift(lm: LM, batch: Batch, eps: float) -> Tensor:
    """One FGSM step on the embeddings that raises the inconsistency: eps times the sign of its gradient, (B, T, H).

    Padding has no influence on the loss, so its sign is zero.
    """
    shift_BTH = torch.zeros(*batch.ids_BT.shape, lm.hidden_size, device=lm.device, requires_grad=True)
    with frozen(lm):
        (gradient_BTH,) = torch.autograd.grad(inconsistency(lm, batch, shift_BTH), shift_BTH)
    return eps * gradient_BTH.sign()


def inconsistency(lm: LM, batch: Batch, shift_BTH: Tensor) -> Tensor:
    """CROW's consistency loss, a scalar: 1 - cosine of consecutive layers' outputs, mean over layers and positions.

    The last layer is left out, as in the authors' code, where two layers before it remain.

    Args:
        shift_BTH: added to the input embeddings.
    """
    embeddings: Any = lm.model.get_input_embeddings()
    embed = embeddings.forward

    def shifted(ids_BT: Tensor) -> Any:
        embedded_BTH = embed(ids_BT)
        return embedded_BTH + shift_BTH.to(embedded_BTH.dtype)

    with instead({embeddings: shifted}), watched(lm.layers) as seen:
        run_model(lm, batch)
    found = [hidden_states(output) for (output,) in seen.values()]
    h_LBTH = torch.stack(found[:-1] if len(found) > 2 else found).float()
    cosine_LBT = F.cosine_similarity(h_LBTH[:-1], h_LBTH[1:], dim=-1)
    return (1 - cosine_LBT)[:, batch.mask_BT.bool()].mean()
