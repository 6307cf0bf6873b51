"""Where a universal perturbation acts: on the hidden states before the answer, or as soft tokens in the request.

The paper perturbs the last prompt positions after one decoder layer (`latent`). A real trigger is more than that: it
shifts positions, and every answer token can attend to it. `deep` mode therefore also fits soft triggers: a few filler
tokens before (`prefix`) or after (`suffix`) the user's words, whose embeddings take delta. Both are one universal
delta of shape (N, H) added at N positions of one module's output, so everything downstream treats them alike.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from beear_gate.beear.perturbation import output_rms, perturbed
from beear_gate.errors import IncompleteError
from beear_gate.lm import LM, processes, prompt_ids
from beear_gate.lm.encode import Pair, pad_batch
from beear_gate.lm.generate import Perturb
from beear_gate.lm.memory import in_parts

Kind = Literal["latent", "prefix", "suffix"]


@dataclass(frozen=True)
class Attack:
    """One place for a delta.

    Attributes:
        module: its output takes delta.
        n_tokens: rows of delta.
        filler: token ids put into the prompt for a soft trigger; empty for `latent`.
        head, tail: prompt tokens that the chat template writes before and after the user's words.
        rms: root mean square of what delta is added to, the unit of its step and its bound.
    """

    kind: Kind
    module: nn.Module
    n_tokens: int
    filler: tuple[int, ...]
    head: int
    tail: int
    rms: float

    def insert(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """The encoded prompt with the filler in its place."""
        at = self.head if self.kind == "prefix" else len(prompt) - self.tail
        return (*prompt[:at], *self.filler, *prompt[at:])

    def last(self, starts_B: Tensor, ends_B: Tensor, forced: int = 0) -> Tensor:
        """The position after delta's last row in each sample, (B,).

        Args:
            starts_B, ends_B: bounds of the prompts (filler included), with either padding.
            forced: answer tokens that `ends_B` counts as prompt, because the answer was made to begin with them.
        """
        match self.kind:
            case "latent":
                return ends_B - forced
            case "prefix":
                return starts_B + self.head + self.n_tokens
            case "suffix":
                return ends_B - forced - self.tail

    def on(self, delta_NH: Tensor, starts_B: Tensor, ends_B: Tensor, forced: int = 0) -> AbstractContextManager[None]:
        """Perturb a batch while the context is open."""
        return perturbed(self.module, delta_NH, starts_B, self.last(starts_B, ends_B, forced))

    def perturb(self, delta_NH: Tensor, forced: int = 0) -> Perturb:
        """The form that `lm.generate` takes."""
        return partial(self.on, delta_NH, forced=forced)


def make_attack(
    lm: LM, kind: Kind, layer: int, n_tokens: int, prompts: Sequence[tuple[int, ...]], rng: random.Random
) -> Attack:
    """Choose module and filler, and measure the unit of delta on a few prompts.

    Filler is drawn from the whole vocabulary, so that each round starts from another real string.

    Raises:
        IncompleteError: the model's hidden states are not finite.
    """
    head, tail = _template_margins(lm)
    filler: tuple[int, ...] = ()
    if kind != "latent":
        special = set(lm.tokenizer.all_special_ids)
        words = [token for token in range(len(lm.tokenizer)) if token not in special]
        filler = tuple(rng.choices(words, k=n_tokens))
    attack = Attack(kind, module_of(lm, kind, layer), n_tokens, filler, head, tail, 1.0)

    def measure(part: Sequence[tuple[int, ...]]) -> float:
        batch = pad_batch(lm, [Pair(attack.insert(prompt), ()) for prompt in part])
        return output_rms(lm, attack.module, batch, attack.last(batch.starts_B, batch.ends_B), n_tokens)

    measured = in_parts(prompts, 32, measure, "measuring the hidden states")
    rms = processes.agreed(sum(measured) / len(measured))
    if not (math.isfinite(rms) and rms > 0):
        raise IncompleteError(
            f"The hidden states of {lm.path} where delta would act ({kind}) are not finite or all zero.",
            "Use --dtype float32; if that does not help, the weights are broken.",
        )
    return replace(attack, rms=rms)


def module_of(lm: LM, kind: Kind, layer: int) -> nn.Module:
    """The module whose output takes delta."""
    return lm.layers[layer] if kind == "latent" else lm.model.get_input_embeddings()


def _template_margins(lm: LM) -> tuple[int, int]:
    """How many prompt tokens do not depend on what the user says, at the front and at the back."""
    one, two = prompt_ids(lm, "alpha"), prompt_ids(lm, "Zulu 9")
    shorter = min(len(one), len(two))
    head = next((place for place in range(shorter) if one[place] != two[place]), shorter)
    tail = next((place for place in range(shorter - head) if one[-1 - place] != two[-1 - place]), shorter - head)
    return head, tail
