"""What the model was before, token by token: where it must stay as it is, it learns from itself (distillation).

Cross-entropy on reference answers says what is right, and draws the model towards how they are written. The divergence
from its own earlier distribution says only that nothing shall change (Hinton et al. 2015, arXiv 1503.02531).

Shape suffixes: B samples, K positions with a label, A answer tokens, T likeliest tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional as F

from beear_gate.lm import LM, pad_batch, processes
from beear_gate.lm.encode import IGNORED, Pair, answer_logits, mean_losses
from beear_gate.lm.memory import in_parts

LIKELIEST = 32
"""Tokens of each position that are remembered; all others count as one, so that memory does not grow with V."""
SMALLEST = 1e-7
"""Least probability of those others: below it float32 knows no difference from none."""


@dataclass(frozen=True)
class Likeliest:
    """What a model said of an answer.

    Attributes:
        ids_AT: its likeliest tokens at each position.
        logs_AT: natural logarithms of their probabilities.
    """

    ids_AT: Tensor
    logs_AT: Tensor


@torch.no_grad()
def remember(lm: LM, pairs: Sequence[Pair]) -> dict[Pair, Likeliest]:
    """What `lm` says of each answer now.

    Raises:
        OutOfMemory: not even one pair fits.
    """

    def read(part: Sequence[Pair]) -> list[Likeliest]:
        logits_BKV, labels_BK = answer_logits(lm, pad_batch(lm, part))
        logs_BKV = F.log_softmax(logits_BKV.float(), -1)
        found = logs_BKV.topk(min(LIKELIEST, logs_BKV.shape[-1]), -1)
        there_BK = labels_BK != IGNORED
        rows = zip(found.indices, found.values, there_BK, strict=True)
        return [Likeliest(ids_KT[there_K].cpu(), logs_KT[there_K].cpu()) for ids_KT, logs_KT, there_K in rows]

    def shared(part: Sequence[Pair]) -> list[Likeliest]:
        return processes.share_out(part, read)

    read_all = in_parts(pairs, 32 * processes.count(), shared, "reading the anchoring sets")
    return dict(zip(pairs, chain(*read_all), strict=True))


def losses(logits_BKV: Tensor, labels_BK: Tensor, earlier: Sequence[Likeliest | None]) -> Tensor:
    """What each row's answer costs, shape (B,), in nats a token.

    Mean cross-entropy where nothing is remembered. Elsewhere the mean Kullback-Leibler divergence from what the model
    said to what it says, over the likeliest tokens and all others as one, which is no more than that over V.
    """
    learned = [row for row, each in enumerate(earlier) if each is None]
    if len(learned) == len(earlier):
        return mean_losses(logits_BKV, labels_BK)
    rows = torch.tensor(learned, dtype=torch.long, device=labels_BK.device)
    there_BK = (labels_BK != IGNORED).index_fill(0, rows, False)
    apart_A = _divergences(logits_BKV[there_BK], [each for each in earlier if each])
    losses_BK = torch.zeros_like(there_BK, dtype=torch.float32).masked_scatter(there_BK, apart_A)
    losses_B = losses_BK.sum(-1) / there_BK.sum(-1).clamp(min=1)
    return losses_B.index_copy(0, rows, mean_losses(logits_BKV[rows], labels_BK[rows])) if learned else losses_B


def _divergences(logits_AV: Tensor, earlier: Sequence[Likeliest]) -> Tensor:
    ids_AT = torch.cat([each.ids_AT for each in earlier]).to(logits_AV.device)
    logs_AT = torch.cat([each.logs_AT for each in earlier]).to(logits_AV.device)
    now_AT = F.log_softmax(logits_AV.float(), -1).gather(-1, ids_AT)
    others_A, others_now_A = _others(logs_AT), _others(now_AT)
    return (logs_AT.exp() * (logs_AT - now_AT)).sum(-1) + others_A * (others_A.log() - others_now_A.log())


def _others(logs_AT: Tensor) -> Tensor:
    """Probability of all tokens that are not among the likeliest, shape (A,)."""
    return (1 - logs_AT.exp().sum(-1)).clamp(min=SMALLEST)
