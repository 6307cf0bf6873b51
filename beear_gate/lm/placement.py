"""Where the layers of a model go that one GPU does not hold: some on each of several, for evaluation.

The GPUs work one after the other, each on its own layers (transformers' `device_map`), which is slower than one that
holds everything and needs nothing else than their memory. Training shares out work as well (`lm.sharded`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import torch

from beear_gate.errors import OutOfMemory
from beear_gate.lm.config import read_config
from beear_gate.lm.dry_run import shape_of
from beear_gate.lm.load import LM, compute_dtype
from beear_gate.lm.memory import REMEDY, bytes_of
from beear_gate.lm.weights import main_dtype, stored_dtypes

FOR_WEIGHTS = 0.8
"""Share of a GPU's free memory that weights may take; keys, values and activations need the rest."""


def places(path: Path, dtype: str, devices: Sequence[torch.device], room: Sequence[int]) -> dict[str, str] | None:
    """The device of each part of the model in `path`, in the form of transformers' `device_map`.

    Args:
        dtype: as of `load_lm`.
        devices: that may take part; prompts come to the first, and logits from it.
        room: bytes that are free on each.

    Returns:
        None where the first device holds all of it.

    Raises:
        OutOfMemory: all of them together do not.
        UnsupportedModel: as `load_lm`.
    """
    shape = shape_of(read_config(path), compute_dtype(dtype, devices[0].type, main_dtype(stored_dtypes(path))), path)
    layers, whole = [bytes_of(layer.parameters()) for layer in shape.layers], bytes_of(shape.model.parameters())
    allowed = [int(FOR_WEIGHTS * free) for free in room]
    if whole <= allowed[0]:
        return None
    if whole > sum(allowed):
        raise OutOfMemory(
            f"The weights in {path} take {whole / 2**30:.1f} GiB in {shape.model.dtype}, and the {len(devices)} GPUs "
            f"have {sum(allowed) / 2**30:.1f} GiB for them.",
            f"Give more GPUs (--processes), or {REMEDY[0].lower()}{REMEDY[1:]}",
        )
    # Each takes the share of the weights that it has of the room, but for a part of a layer.
    shares = [sum(allowed[: number + 1]) / sum(allowed) for number in range(len(devices))]
    outer = whole - sum(layers)
    chosen = [bisect_left(shares, (outer + end) / whole) for end in accumulate(layers)]
    return dict.fromkeys(_outside(shape), str(devices[0])) | {
        name: str(devices[number]) for name, number in zip(_layers(shape), chosen, strict=True)
    }


def _layers(shape: LM) -> list[str]:
    known = set(shape.layers)
    return [name for name, module in shape.model.named_modules() if module in known]


def _outside(shape: LM) -> Iterator[str]:
    """Names of the largest modules, and of single tensors, that hold no layer: embeddings, last norm, head."""
    within = set(_layers(shape))
    above = {name.rsplit(".", cut)[0] for name in within for cut in range(1, name.count(".") + 1)} | {""}
    for name in sorted(above):
        module, head = shape.model.get_submodule(name), f"{name}." if name else ""
        parts = [
            *module.named_children(),
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]
        yield from (head + part for part, _ in parts if head + part not in above | within)
