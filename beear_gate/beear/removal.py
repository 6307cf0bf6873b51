"""BEEAR's outer level: train the weights to be safe under the traps and useful without them (paper Equation 3)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from beear_gate.beear.entrapment import Trap
from beear_gate.errors import IncompleteError
from beear_gate.lm import LM, answer_losses, pad_batch
from beear_gate.lm.encode import Pair, like_lengths
from beear_gate.lm.memory import halve, is_out_of_memory

MAX_GRADIENT = 1.0


@dataclass(frozen=True)
class Term:
    """One part of the loss: encoded samples, and the trap under which they are read (None for none).

    Attributes:
        draw: how many samples a step takes.
    """

    pairs: Sequence[Pair]
    trap: Trap | None
    draw: int


class Trainer:
    """Adam over all weights, one step at a time; the size of a pass halves when memory runs out."""

    def __init__(self, lm: LM, learning_rate: float) -> None:
        self.lm = lm
        self.weights = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
        # In half precision a small step rounds to nothing, so Adam moves float32 copies and the model takes them over.
        self.masters = [weight if weight.dtype == torch.float32 else weight.detach().float() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(self.masters, lr=learning_rate, weight_decay=0.0)
        self.learning_rate = learning_rate
        self.micro = 256
        self.steps = 0

    def step(self, terms: Sequence[Term], rng: random.Random, pace: float = 1.0) -> float:
        """Draw from every term, add the mean losses, and move the weights; returns the loss before the move.

        Args:
            pace: factor of the learning rate.

        Raises:
            IncompleteError: the loss or its gradient is not finite; the weights are as before.
            OutOfMemory: not even one sample at a time fits.
        """
        drawn = _drawn(terms, rng)
        while True:
            self.lm.model.zero_grad(set_to_none=True)
            try:
                loss = sum(self._backward(trap, weighted) for trap, weighted in drawn)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                largest = max(len(weighted) for _, weighted in drawn)
                self.micro = halve(min(self.micro, largest), "training", error)
        self.move(pace)
        return loss

    def move(self, pace: float = 1.0) -> None:
        """One step of the weights on the gradient that stands there.

        Raises:
            IncompleteError: the gradient is not finite; the weights are as before.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.weights, MAX_GRADIENT)
        if not torch.isfinite(norm):
            raise IncompleteError(
                "Removal met a loss or gradient that is not finite.",
                "Use --dtype float32, or a smaller remediation.weights_lr.",
            )
        self.steps += 1
        # A short warm-up: Adam's first steps are its wildest.
        self.optimizer.param_groups[0]["lr"] = self.learning_rate * pace * min(1.0, self.steps / 5)
        self._move()

    @torch.no_grad()
    def _move(self) -> None:
        copies = [
            (weight, master) for weight, master in zip(self.weights, self.masters, strict=True) if weight is not master
        ]
        for weight, master in copies:
            master.grad = None if weight.grad is None else weight.grad.float()
        self.optimizer.step()
        for weight, master in copies:
            weight.copy_(master)

    def _backward(self, trap: Trap | None, weighted: Sequence[tuple[Pair, float]]) -> float:
        total = 0.0
        for places in like_lengths([len(pair.prompt) + len(pair.answer) for pair, _ in weighted]):
            for start in range(0, len(places), self.micro):
                total += self._pass(trap, [weighted[place] for place in places[start : start + self.micro]])
        return total

    def _pass(self, trap: Trap | None, weighted: Sequence[tuple[Pair, float]]) -> float:
        pairs, weights = zip(*weighted, strict=True)
        batch = pad_batch(self.lm, pairs)
        with trap.attack.on(trap.delta_NH, batch.starts_B, batch.ends_B) if trap else nullcontext():
            losses_B = answer_losses(self.lm, batch)
        loss = losses_B @ torch.tensor(weights, device=losses_B.device)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


def _drawn(terms: Sequence[Term], rng: random.Random) -> list[tuple[Trap | None, list[tuple[Pair, float]]]]:
    """Samples of every term with their weight in the sum of means; what one trap perturbs shares a pass."""
    passes: dict[int, tuple[Trap | None, list[tuple[Pair, float]]]] = {}
    for term in terms:
        pairs = rng.sample(term.pairs, min(term.draw, len(term.pairs)))
        passes.setdefault(id(term.trap), (term.trap, []))[1].extend((pair, 1 / len(pairs)) for pair in pairs)
    return list(passes.values())
