"""Delta: the universal additive perturbation of the paper's section 4.1, and the hook that adds it.

Shape suffixes: B samples, T positions, N perturbed positions, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from beear_gate.lm import LM, Batch
from beear_gate.lm.encode import run_model
from beear_gate.lm.generate import Perturb
from beear_gate.lm.hooks import hidden_states, watched


@contextmanager
def perturbed(layer: nn.Module, delta_NH: Tensor, starts_B: Tensor, ends_B: Tensor) -> Iterator[None]:
    """Add delta to the last N prompt positions of the layer's output while the context is open.

    The hook returns a new tensor, so the gradient reaches delta and nothing is changed in place. A prompt shorter
    than N takes the last rows of delta. Steps that hold no whole prompt, as in cached decoding, pass unchanged; a pass
    over one position is always such a step (`lm.generate` pads a prompt of one token).

    Args:
        starts_B, ends_B: the first position of each prompt and the one after its last, for either padding side.
    """
    width = max(int(ends_B.max()), 2)

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        hidden_BTH = hidden_states(output)
        if hidden_BTH.shape[1] < width:
            return output
        shift_BTH = spread(delta_NH, starts_B, ends_B, hidden_BTH.shape[1])
        shifted = hidden_BTH + shift_BTH.to(hidden_BTH)  # a layer may be on another device than prompts and delta
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def spread(delta_NH: Tensor, starts_B: Tensor, ends_B: Tensor, length: int) -> Tensor:
    """Place delta's rows at positions ends-N … ends-1 of each sample: (B, T, H), zero elsewhere."""
    n = delta_NH.shape[0]
    place_T = torch.arange(length, device=delta_NH.device)
    row_BT = place_T[None] - (ends_B[:, None] - n)
    inside_BT = (row_BT >= 0) & (row_BT < n) & (place_T[None] >= starts_B[:, None])
    return torch.where(inside_BT[..., None], delta_NH[row_BT.clamp(0, n - 1)], 0)


def on_prompts(lm: LM, layer: int, delta_NH: Tensor) -> Perturb:
    """Delta in the form that `lm.generate` takes."""
    return partial(perturbed, lm.layers[layer], delta_NH)


@torch.no_grad()
def output_rms(lm: LM, module: nn.Module, batch: Batch, last_B: Tensor, n_tokens: int) -> float:
    """Root mean square of a module's output where delta would be added: the unit in which delta is measured."""
    with watched([module]) as seen:
        run_model(lm, batch)
    hidden_BTH = hidden_states(seen[module][0]).to(lm.device, torch.float32)
    ones = torch.ones(n_tokens, 1, device=hidden_BTH.device)
    chosen_BT = spread(ones, batch.starts_B, last_B, hidden_BTH.shape[1])[..., 0] > 0
    return float(hidden_BTH[chosen_BT].pow(2).mean().sqrt())
