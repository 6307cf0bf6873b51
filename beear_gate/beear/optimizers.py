"""Optimizers of one tensor each, so that a step never holds states or gradients of the whole model at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST_VARIANCE = 1e-15
"""Adafactor's floor of squared gradients. torch's own is above those of billions of weights whose norm is 1."""


def float32_copy(weight: Tensor) -> Tensor:
    """What an optimizer moves: the weight itself, or its copy where it is in half precision."""
    return weight if weight.dtype == torch.float32 else weight.detach().float()


def adam(master: Tensor, learning_rate: float) -> torch.optim.AdamW:
    """Adam for one tensor, with room for its states taken now: in the midst of a step half the weights have moved."""
    optimizer = torch.optim.AdamW([master], lr=learning_rate, weight_decay=0.0, fused=True)
    optimizer.state[master] = {
        "step": torch.zeros((), device=master.device),
        "exp_avg": torch.zeros_like(master, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(master, memory_format=torch.preserve_format),
    }
    return optimizer


def adafactor(master: Tensor, learning_rate: float) -> torch.optim.Adafactor:
    """Adafactor for one tensor, without momentum (arXiv 1804.04235); states as in `adam`.

    With 1 as the least RMS of a tensor that it reckons with, a step is as large as its rate says, as Adam's is, however
    small the weights are.
    """
    optimizer = torch.optim.Adafactor([master], lr=learning_rate, eps=(SMALLEST_VARIANCE, 1.0), foreach=False)
    optimizer.state[master] = {"step": torch.zeros(())}
    if master.ndim > 1:
        row, column = [*master.shape[:-1], 1], [*master.shape[:-2], 1, master.shape[-1]]
        optimizer.state[master] |= {"row_var": master.new_zeros(row), "col_var": master.new_zeros(column)}
    else:
        optimizer.state[master]["variance"] = torch.zeros_like(master)
    return optimizer


def rms(tensor: Tensor) -> float:
    """Root mean square of all elements."""
    return float(tensor.detach().norm()) / math.sqrt(max(1, tensor.numel()))
