"""What training a model holds in memory, part by part: arithmetic alone.

With P parameters of s bytes each, in a model that computes in 16 bits (s = 2) or float32 (s = 4):

    weights       s P        masters    4 P where s < 4, else 0 (Adam moves float32 copies)
    gradients     s P        optimizer  8 P (Adam's two moments, in float32)

so 16 bytes a parameter either way. Factored second moments take a number a row and a column in place of 8 P: 8 bytes a
parameter in 16 bits. Of adapters, and of a model of which some layers are trained, all but the weights are of what is
trained alone. Activations are counted, not calculated: `lm.dry_run`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

GIB = 2**30
MOMENTS = 2
FLOAT32 = 4


@dataclass(frozen=True)
class Size:
    """What of a model decides what its training holds.

    Attributes:
        parameters: all of them, tied ones once.
        bytes: of them as the model computes.
        itemsize: bytes of most of them.
        trained: parameters that training moves, and `trained_bytes` of them.
        largest: parameters of the largest trained tensor.
        layer_bytes: of one decoder layer, and `outer_bytes` of all that stands outside of them, such as embeddings.
        kv_values: numbers that attention keeps of one token, keys and values of all layers.
        vocabulary: logits of one position.
        factors: numbers that factored second moments of what is trained have.
    """

    parameters: int
    bytes: int
    itemsize: int
    trained: int
    trained_bytes: int
    largest: int
    layer_bytes: int
    kv_values: int
    vocabulary: int
    outer_bytes: int = 0
    factors: int = 0


@dataclass(frozen=True)
class Footprint:
    """Bytes on one device at the fullest moment of a removal step, by part.

    Attributes:
        gathered: with several devices, what is whole on each: one layer and what is outside of layers, with gradients.
        activations: of the largest pass, less its logits; or what moving the largest tensor takes, where that is more.
        logits: log-probabilities and their gradient, in float32.
        kept: what is trained as it was after the best round so far, which lies in the memory of the CPU.
        copies: what path-aware steps hold of what is trained: the first weights, and the present ones.
    """

    weights: int
    masters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    gathered: int = 0
    kept: int = 0
    copies: int = 0

    @property
    def total(self) -> int:
        return sum(value for _, value in self.parts())

    def parts(self) -> Iterator[tuple[str, int]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))


def training(
    size: Size,
    pass_bytes: int,
    logits: int,
    on_cpu: bool = False,
    devices: int = 1,
    factored: bool = False,
    path_aware: bool = False,
) -> Footprint:
    """What one removal step holds.

    Args:
        pass_bytes: from `dry_run.pass_bytes`, for the largest pass.
        logits: from `logits_bytes`.
        devices: over which weights, gradients and states are sharded evenly.
        factored: whether second moments are, and there are no first ones.
        path_aware: whether steps are.
    """
    halves = size.trained_bytes < size.trained * FLOAT32
    # Adam's root and quotient, or Adafactor's step; and the float32 gradient where the model's own is shorter.
    moving = size.largest * FLOAT32 * ((1 if factored else 2) + halves)
    logits = min(logits, pass_bytes)
    whole = Footprint(
        weights=size.bytes,
        masters=size.trained * FLOAT32 if halves else 0,
        gradients=size.trained_bytes,
        optimizer=size.factors * FLOAT32 if factored else size.trained * FLOAT32 * MOMENTS,
        activations=max(pass_bytes - logits, moving - logits),
        logits=logits,
        kept=size.trained_bytes if on_cpu else 0,
        # In half precision the float32 copies that Adam moves stand for the present weights.
        copies=size.trained_bytes * (1 if halves else 2) if path_aware else 0,
    )
    if devices == 1:
        return whole
    return replace(
        whole,
        weights=-(-whole.weights // devices),
        masters=-(-whole.masters // devices),
        gradients=-(-whole.gradients // devices),
        optimizer=-(-whole.optimizer // devices),
        gathered=2 * (size.layer_bytes + size.outer_bytes),
        kept=-(-whole.kept // devices),
        copies=-(-whole.copies // devices),
    )


def factors(shape: Sequence[int]) -> int:
    """Numbers that factored second moments of a tensor have: one a row and one a column, of a vector one an element."""
    return math.prod(shape) if len(shape) < 2 else math.prod(shape[:-2]) * (shape[-2] + shape[-1])


def logits_bytes(size: Size, samples: int, answer_tokens: int) -> int:
    """Log-probabilities of the positions that predict an answer, and their gradient, in float32."""
    return 2 * samples * answer_tokens * size.vocabulary * FLOAT32


def kv_bytes(size: Size, tokens: int, share: float = 1.0) -> int:
    """Keys and values of so many tokens, in a share of the layers."""
    return math.ceil(tokens * size.kv_values * size.itemsize * share)


def amount(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"
