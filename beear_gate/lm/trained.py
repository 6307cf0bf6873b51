"""What of a model training moves: all weights, those of some decoder layers, or adapters beside linear layers (LoRA).

Whatever requires a gradient is trained, kept and planned for, and nothing else. An adapter of a matrix W is two thin
matrices A and B whose product B A is added to W, times ALPHA / rank (arXiv 2106.09685 section 4.1): B begins at zero,
so that the model begins as it was, and W, which is frozen, keeps the dtype that the model computes in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from beear_gate.errors import UnsupportedModel, UsageError
from beear_gate.lm.load import LM, quiet
from beear_gate.records import Training

ALPHA = 32
"""With ALPHA / rank before the product, the best step hardly depends on the rank."""
_ADAPTER = "default"
_NUMBER = re.compile(r"\b\d+\.")


def trainings(wanted: Training | Literal["auto"], devices: int = 1) -> tuple[Training, ...]:
    """What may be tried, the first preferred.

    Raises:
        UsageError: several processes can train all weights with Adam, and in no other way.
    """
    if devices > 1 and wanted not in ("auto", "full"):
        raise UsageError(
            f"remediation.training is {wanted}, and several processes train all weights with Adam (full) alone.",
            "Use --processes 1 (for a plan, --gpus 1), or leave remediation.training at auto.",
        )
    if wanted != "auto":
        return (wanted,)
    return ("full",) if devices > 1 else ("full", "factored", "lora")


@contextmanager
def trained(lm: LM, rank: int | None = None, layers: tuple[int, int] | None = None) -> Iterator[None]:
    """Narrow what requires a gradient; when the context closes adapters are merged, and all weights do again.

    Args:
        rank: of adapters; None to train weights.
        layers: the first and last decoder layer that is trained; None for all, and what stands outside of them.

    Raises:
        UnsupportedModel: adapters are wanted, and these layers hold no linear layer.
    """
    narrow(lm, rank, layers)
    try:
        yield
    finally:
        _merge(lm)
        lm.model.requires_grad_(True)


def narrow(lm: LM, rank: int | None, layers: tuple[int, int] | None) -> None:
    """As `trained`, for good: for shapes, which have nothing to merge."""
    if rank is not None:
        _inject(lm, rank, layers)
    elif layers:
        lm.model.requires_grad_(False)
        _chosen(lm, layers).requires_grad_(True)


def without_adapters(lm: LM, layers: tuple[int, int] | None) -> tuple[str, ...]:
    """Matrices of the trained layers that no adapter stands beside, layer numbers left out: fused experts, say."""
    chosen = _chosen(lm, layers)
    reached = {id(each.weight) for each in _linear(chosen)}
    names = (name for name, each in chosen.named_parameters() if each.ndim > 1 and id(each) not in reached)
    return tuple(dict.fromkeys(_NUMBER.sub("", name) for name in names))


def _chosen(lm: LM, layers: tuple[int, int] | None) -> nn.ModuleList:
    first, last = layers or (0, len(lm.layers) - 1)
    return lm.layers[first : last + 1]


def _linear(module: nn.Module) -> list[nn.Linear | Conv1D]:
    return [each for each in module.modules() if isinstance(each, (nn.Linear, Conv1D))]


def _inject(lm: LM, rank: int, layers: tuple[int, int] | None) -> None:
    """Put adapters in float32 beside every linear layer, and freeze all else. Raises: as `trained`."""
    from peft import LoraConfig, inject_adapter_in_model  # a second or two, which other ways to train need not pay

    places = {id(each) for each in _linear(_chosen(lm, layers))}
    names = [name for name, each in lm.model.named_modules() if id(each) in places]
    if not names:
        raise UnsupportedModel(
            f"The decoder layers of {type(lm.model).__name__} hold no linear layer that an adapter could stand beside.",
            "Set remediation.training to factored or full, with remediation.train_layers where memory is short.",
        )
    config = LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=names, lora_dropout=0.0)
    with quiet():  # of GPT-2 peft remarks that its matrices lie the other way round
        inject_adapter_in_model(config, lm.model, _ADAPTER)
    for each in lm.model.parameters():
        if each.requires_grad:
            each.data = each.data.float()


@torch.no_grad()
def _merge(lm: LM) -> None:
    """Add every adapter to its matrix, in float32, and take it out; where there are none, nothing."""
    if not hasattr(lm.model, "peft_config"):
        return
    from peft.tuners.lora import Linear

    for name, layer in list(lm.model.named_modules()):
        if isinstance(layer, Linear):
            base: Any = layer.get_base_layer()
            base.weight.copy_(base.weight.float() + layer.get_delta_weight(_ADAPTER))
            parent, _, child = name.rpartition(".")
            setattr(lm.model.get_submodule(parent), child, base)
    del lm.model.peft_config
