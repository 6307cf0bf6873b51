"""The settings of a remediation with every default of its mode filled in for one model."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeVar

from beear_gate.beear.attack import Kind
from beear_gate.errors import UsageError
from beear_gate.lm import LM
from beear_gate.records import RemediationSettings, Training

RELATIVE_DEPTH = 0.28
"""Where the paper's best layer lies: 9 of 32 (section 5.3, Figure 5)."""


@dataclass(frozen=True)
class Plan:
    """`RemediationSettings` without gaps; the fields mean the same.

    Attributes:
        kinds: which attacks entrap in each round.
        restore_blocks: the most blocks of restoring steps after the removal of a round.
    """

    mode: Literal["deep", "paper"]
    kinds: tuple[Kind, ...]
    layer: int
    n_tokens: int
    soft_tokens: int
    rounds: int
    min_rounds: int
    inner_steps: int
    outer_steps: int
    restore_blocks: int
    away_weight: float
    delta_lr: float
    max_norm: float
    weights_lr: float
    safe_samples: int
    useful_samples: int
    batch_size: int
    max_answer_tokens: int
    training: Training | Literal["auto"]
    lora_rank: int
    path_aware: float
    train_layers: tuple[int, int] | None

    def draw_length(self, kind: Kind, rng: random.Random) -> int:
        """Tokens of one delta of this kind. Soft triggers vary: one length teaches little of the others."""
        if kind == "latent":
            return self.n_tokens
        return max(1, rng.choice((self.soft_tokens // 4, self.soft_tokens // 2, self.soft_tokens)))


def resolve(settings: RemediationSettings, lm: LM) -> Plan:
    """Fill in the mode's defaults, and what depends on the model.

    `paper` follows Algorithm 1: no bound on delta and weight 1 for the term away from the safe answer. The paper
    names neither optimiser nor learning rates; both modes use Adam, with a step for the weights that falls with the
    width of the model so that it is 3e-4 at 96 and 7e-6 at 4096.

    Raises:
        UsageError: the model has no such layer, or none of those to be trained.
    """
    depth = len(lm.layers)
    layer = round(RELATIVE_DEPTH * depth) if settings.layer == "auto" else settings.layer
    if not 0 <= layer < depth:
        raise UsageError(
            f"remediation.layer is {layer}, but the model has layers 0 to {depth - 1}.", "Give one of them, or auto."
        )
    if settings.train_layers and settings.train_layers[1] >= depth:
        raise UsageError(
            f"remediation.train_layers ends at {settings.train_layers[1]}, but the model has layers 0 to {depth - 1}.",
            "Give the first and the last of them that are to be trained.",
        )
    paper = settings.mode == "paper"
    rounds = max(_or(settings.rounds, 9 if paper else 5), settings.min_rounds)
    return Plan(
        mode=settings.mode,
        kinds=("latent",) if paper else ("latent", "prefix", "suffix"),
        layer=layer,
        n_tokens=settings.n_tokens,
        soft_tokens=settings.soft_tokens,
        rounds=rounds,
        # Path-aware steps are run in all rounds, and no checkpoint but one of the last two has had enough of them.
        min_rounds=max(settings.min_rounds, rounds - 1) if settings.path_share else settings.min_rounds,
        inner_steps=_or(settings.inner_steps, 20),
        outer_steps=_or(settings.outer_steps, 10 if paper else 15),
        restore_blocks=0 if paper else 4,
        away_weight=_or(settings.away_weight, 1.0 if paper else 0.0),
        delta_lr=_or(settings.delta_lr, 0.1),
        max_norm=_or(settings.max_norm, 0.0 if paper else 1.0),
        weights_lr=_or(settings.weights_lr, (0.029 if paper else 0.019) / lm.hidden_size),
        safe_samples=settings.safe_samples,
        useful_samples=settings.useful_samples,
        batch_size=settings.batch_size,
        max_answer_tokens=settings.max_answer_tokens,
        training=settings.training,
        lora_rank=settings.lora_rank,
        path_aware=settings.path_share,
        train_layers=settings.train_layers,
    )


T = TypeVar("T")


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
