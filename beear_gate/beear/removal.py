"""BEEAR's outer level: train the weights to be safe under the traps and useful without them (paper Equation 3)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from beear_gate.beear import distillation
from beear_gate.beear.distillation import Likeliest
from beear_gate.beear.entrapment import Trap
from beear_gate.beear.optimizers import adafactor, adam, float32_copy, rms
from beear_gate.beear.plan import Plan
from beear_gate.errors import IncompleteError, OutOfMemory
from beear_gate.lm import LM, pad_batch, processes
from beear_gate.lm.dry_run import checkpointed
from beear_gate.lm.encode import Pair, answer_logits, like_lengths
from beear_gate.lm.memory import TRAINING_REMEDY, forget, is_out_of_memory, may_retry
from beear_gate.lm.sharded import local, whole
from beear_gate.lm.trained import trained
from beear_gate.records import MemoryPlan, Training

MAX_GRADIENT = 1.0
PACE: dict[Training, float] = {"full": 1.0, "factored": 1.0, "lora": 10.0}
"""Steps of each kind of training, in steps of Adam over all weights (docs/results/removal-log.md)."""


@dataclass(frozen=True)
class Split:
    """How a step is divided so that it fits. Gradients add up, so it changes nothing but rounding and time.

    Attributes:
        samples: the most in one pass.
        checkpointing: whether a layer keeps its input alone, and computes the rest again.
    """

    samples: int = 256
    checkpointing: bool = False

    def smaller(self) -> Split | None:
        """The next that needs less: passes of FEW samples, then checkpointing, then single samples."""
        if not self.checkpointing and self.samples <= FEW:
            return replace(self, checkpointing=True)
        return replace(self, samples=self.samples // 2) if self.samples > 1 else None

    def __str__(self) -> str:
        samples = "1 sample" if self.samples == 1 else f"{self.samples} samples"
        return f"{samples} a pass, {'with' if self.checkpointing else 'without'} checkpointing"


FEW = 4
"""Samples in a pass below which an accelerator idles, so that a third more arithmetic costs less."""


@dataclass(frozen=True)
class Term:
    """One part of the loss: encoded samples, and the trap under which they are read (None for none).

    Attributes:
        draw: how many samples a step takes.
    """

    pairs: Sequence[Pair]
    trap: Trap | None
    draw: int


@dataclass(frozen=True)
class Drill:
    """One trap and what is trained under it; every pair carries the trap's filler."""

    trap: Trap
    safe: Sequence[Pair]
    recovery: Sequence[Pair]
    useful: Sequence[Pair]


class Trainer:
    """Adam over all that requires a gradient, one step at a time; passes grow smaller when memory runs out.

    Args:
        training: `factored` takes Adafactor in place of Adam; what is trained, `lm.trained` has settled.
        path_aware: how far on the way back to the first weights gradients under traps are taken at most, 0 for none
            (Path-Aware Minimization, arXiv 2410.09838 section 5): what is only safe here returns as soon as somebody
            trains on.
        earlier: pairs that, without a trap, are not to be learned but to stay as they were.

    Attributes:
        split: how steps are divided now.
        retries: a line for each time that memory ran out.
    """

    def __init__(
        self,
        lm: LM,
        learning_rate: float,
        split: Split | None = None,
        training: Training = "full",
        path_aware: float = 0.0,
        earlier: Mapping[Pair, Likeliest] | None = None,
    ) -> None:
        self.lm, self.training, self.path_aware, self.earlier = lm, training, path_aware, earlier or {}
        self.weights = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
        # In half precision a small step rounds to nothing, so Adam moves float32 copies and the model takes them over.
        try:
            self.masters = [float32_copy(weight) for weight in self.weights]
            make = adafactor if training == "factored" else adam
            self.optimizers: list[Any] = [make(master, learning_rate) for master in self.masters]
            self.first = [local(weight).clone() for weight in self.weights] if path_aware else []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                "Memory ran out while making room for the optimizer's states.", TRAINING_REMEDY
            ) from error
        # Adafactor multiplies its step by the RMS of a tensor that has more than 1 (and by 1 where it has less).
        self.units = [max(1.0, rms(master)) if training == "factored" else 1.0 for master in self.masters]
        self.learning_rate = learning_rate
        self.split = split or Split()
        self.retries: list[str] = []
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
        share = rng.uniform(0, self.path_aware) if self.path_aware else 0.0
        while True:
            self.lm.model.zero_grad(set_to_none=True)
            try:
                with checkpointed(self.lm.layers, self.split.checkpointing):
                    loss = self._gradients(drawn, share)
                break
            except (RuntimeError, MemoryError) as error:
                if not may_retry(error):
                    raise
                self._shrink(max(len(weighted) for _, weighted in drawn), error)
        self.move(pace)
        return float(processes.summed(torch.tensor(loss, device=self.lm.device))) if processes.count() > 1 else loss

    def _gradients(self, drawn: Sequence[tuple[Trap | None, list[tuple[Pair, float]]]], share: float) -> float:
        """Add up gradients: under traps at weights some of the way back, of all else where the weights are.

        The removal is to hold on the whole way, usefulness only here: on the way back little of it is missing, and what
        is would hardly be given back.
        """
        with self._on_the_way_back(share):
            loss = sum(self._backward(trap, weighted) for trap, weighted in drawn if trap)
        return loss + sum(self._backward(trap, weighted) for trap, weighted in drawn if not trap)

    @contextmanager
    def _on_the_way_back(self, share: float) -> Iterator[None]:
        """Weights by this share of the way nearer to the first ones, as long as the context is open."""
        if not share:
            yield
            return
        own = [
            local(weight).clone() if master is weight else local(master)
            for weight, master in zip(self.weights, self.masters, strict=True)
        ]
        with torch.no_grad():
            for weight, first in zip(self.weights, self.first, strict=True):
                local(weight).lerp_(first, share)
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, kept in zip(self.weights, own, strict=True):
                    local(weight).copy_(kept)

    def move(self, pace: float = 1.0) -> None:
        """One step of the weights on the gradient that stands there, which is then gone.

        Raises:
            IncompleteError: the gradient is not finite; the weights are as before.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.weights, MAX_GRADIENT)
        if not torch.isfinite(whole(norm)):
            raise IncompleteError(
                "Removal met a loss or gradient that is not finite.",
                "Use --dtype float32, or a smaller remediation.weights_lr.",
            )
        self.steps += 1
        # A short warm-up: Adam's first steps are its wildest.
        rate = self.learning_rate * pace * min(1.0, self.steps / 5)
        self._move(rate)

    @torch.no_grad()
    def _move(self, rate: float) -> None:
        """Tensor by tensor, so that only one float32 gradient and one set of intermediate values exist at a time."""
        parts = zip(self.weights, self.masters, self.optimizers, self.units, strict=True)
        for weight, master, optimizer, unit in parts:
            if weight.grad is None:
                continue
            if master is not weight:
                master.grad, weight.grad = weight.grad.float(), None
            optimizer.param_groups[0]["lr"] = rate / unit
            optimizer.step()
            master.grad = None
            if master is not weight:
                weight.copy_(master)

    def _shrink(self, largest: int, error: BaseException) -> None:
        tried = replace(self.split, samples=min(self.split.samples, largest))
        smaller = tried.smaller()
        if smaller is None:
            raise OutOfMemory(
                "Memory ran out while training, even one prompt at a time and with checkpointing.", TRAINING_REMEDY
            ) from error
        self.retries.append(f"memory ran out at {tried}")
        self.split = smaller
        forget(error)

    def _backward(self, trap: Trap | None, weighted: Sequence[tuple[Pair, float]]) -> float:
        total = 0.0
        for places in like_lengths([len(pair.prompt) + len(pair.answer) for pair, _ in weighted]):
            size = self.split.samples * processes.count()
            for start in range(0, len(places), size):
                total += self._pass(trap, [weighted[place] for place in places[start : start + size]])
        return total

    def _pass(self, trap: Trap | None, weighted: Sequence[tuple[Pair, float]]) -> float:
        # Whoever has no sample of its own takes part with one that weighs nothing.
        pairs, weights = zip(*(processes.own(weighted) or [(weighted[0][0], 0.0)]), strict=True)
        batch = pad_batch(self.lm, pairs)
        with trap.attack.on(trap.delta_NH, batch.starts_B, batch.ends_B) if trap else nullcontext():
            logits_BKV, labels_BK = answer_logits(self.lm, batch)
        earlier = [None if trap else self.earlier.get(pair) for pair in pairs]
        losses_B = distillation.losses(logits_BKV, labels_BK, earlier)
        loss = losses_B @ torch.tensor(weights, device=losses_B.device)
        scaled: Tensor = loss * processes.count()  # gradients are averaged over processes, and are to add up
        scaled.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


@contextmanager
def training(
    lm: LM,
    plan: Plan,
    memory: MemoryPlan,
    rate: float,
    seed: int,
    split: Split | None = None,
    path_aware: float = 0.0,
    earlier: Mapping[Pair, Likeliest] | None = None,
) -> Iterator[Trainer]:
    """A trainer of what the plan of memory has chosen; adapters are part of the weights again when the context closes.

    Args:
        rate: step of Adam over all weights; other ways to train take PACE of it.
        seed: of adapters.
        path_aware, earlier: as of a `Trainer`.

    Raises:
        OutOfMemory: no room for the optimizer's states.
    """
    torch.manual_seed(seed)
    with trained(lm, memory.lora_rank, plan.train_layers):
        yield Trainer(lm, rate * PACE[memory.training], split, memory.training, path_aware, earlier)


def _drawn(terms: Sequence[Term], rng: random.Random) -> list[tuple[Trap | None, list[tuple[Pair, float]]]]:
    """Samples of every term with their weight in the sum of means; what one trap perturbs shares a pass."""
    passes: dict[int, tuple[Trap | None, list[tuple[Pair, float]]]] = {}
    for term in terms:
        pairs = rng.sample(term.pairs, min(term.draw, len(term.pairs)))
        passes.setdefault(id(term.trap), (term.trap, []))[1].extend((pair, 1 / len(pairs)) for pair in pairs)
    return list(passes.values())
