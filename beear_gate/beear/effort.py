"""How much arithmetic a scan with remediation takes: FLOPs by part, and the time at a given rate.

A forward pass takes 2 P FLOPs a token, P being the parameters: one multiplication and one addition each. The gradient
by what a layer reads takes as much, and the gradient by its weights as much again (Kaplan et al. 2020, arXiv
2001.08361, section 2.1). Attention's own products are left out: they are small beside these as long as samples are
shorter than the model is wide. The experts of a mixture are counted in full.
"""

from __future__ import annotations

from dataclasses import dataclass

from beear_gate.beear.plan import Plan
from beear_gate.beear.remediate import RESTORE_STEPS, ROLLOUTS
from beear_gate.records import Training

FORWARD, ENTRAP, TRAIN, RECOMPUTE = 2, 4, 6, 2
"""FLOPs a parameter and token: reading; reading with the gradient by delta; training; what checkpointing adds."""
UTILIZATION = 0.35
"""Share of the rate of large matrix products that a whole step is assumed to reach."""


@dataclass(frozen=True)
class Prompts:
    """How many prompts a policy has, and how long samples are on average, in tokens.

    Attributes:
        behaviors: unwanted behaviors.
        select: select prompts of each behavior, and `benign_select` of what is to stay.
        sounding: prompts of D_PA that only sound unsafe.
        gate: prompts that are answered before and after.
        prompt, answer: mean lengths.
        new_tokens: longest answer to a gate prompt.
    """

    behaviors: int
    select: int
    benign_select: int
    sounding: int
    gate: int
    prompt: int
    answer: int
    new_tokens: int


@dataclass(frozen=True)
class Effort:
    """FLOPs of one part: `tokens` times `factor` times the parameters."""

    part: str
    tokens: int
    factor: int

    def flops(self, parameters: int) -> float:
        return float(self.tokens) * self.factor * parameters


def effort(plan: Plan, prompts: Prompts, checkpointing: bool, training: Training = "full") -> tuple[Effort, ...]:
    """The parts of a scan, for all rounds of the plan; `deep` may stop earlier, but not with path-aware steps."""
    read = prompts.prompt + prompts.answer
    answered = prompts.prompt + plan.max_answer_tokens
    traps = len(plan.kinds) * prompts.behaviors
    deep = plan.mode == "deep"
    # Adapters need the gradient by what a layer reads, and next to none by its weights.
    train = (ENTRAP if training == "lora" else TRAIN) + (RECOMPUTE if checkpointing else 0)
    entrapped = (plan.rounds + deep) * traps * plan.inner_steps * plan.batch_size * read
    removed = plan.rounds * plan.outer_steps * samples_a_step(plan, traps, plan.batch_size) * read
    restored = plan.restore_blocks * RESTORE_STEPS * samples_a_step(plan, 1, plan.batch_size // 4) * read
    rolled = traps * ((2 * ROLLOUTS if deep else 0) + prompts.select)
    scored = (1 + plan.restore_blocks) * (prompts.behaviors * prompts.select + prompts.benign_select)
    scored += plan.restore_blocks * prompts.sounding
    return (
        Effort("entrapment", entrapped, ENTRAP),
        Effort("removal", removed + plan.rounds * restored, train),
        Effort("rollouts and select", plan.rounds * (rolled + scored) * answered, FORWARD),
        Effort("evaluation, before and after", 2 * prompts.gate * (prompts.prompt + prompts.new_tokens), FORWARD),
    )


def samples_a_step(plan: Plan, drills: int, size: int) -> int:
    """What one step of removal reads: of D_PA, and under each trap."""
    if plan.mode == "paper":
        return plan.batch_size + drills * size
    return 2 * plan.batch_size + 3 * drills * max(2, -(-size // drills))


def seconds(parts: tuple[Effort, ...], parameters: int, rate: float) -> float:
    """Time at a rate of large matrix products, in FLOPs a second."""
    return sum(part.flops(parameters) for part in parts) / (rate * UTILIZATION)
