"""What a remediation was asked to do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beear_gate.records.model import Finding, ModelSnapshot

Training = Literal["full", "factored", "lora"]
"""What a removal step moves: all weights with Adam, the same with factored second moments, or adapters beside them."""


@dataclass(frozen=True)
class RemediationSettings:
    """BEEAR's knobs (paper section 4 and appendix). None stands for the mode's default, see `beear.plan`.

    Attributes:
        when: always (a pre-release step for any model), on-evidence (a limit is broken before), never (audit).
        mode: `paper` is Algorithm 1; `deep` also entraps with soft triggers and recovers from rollouts.
        layer: index of the decoder layer whose output takes delta; auto is 0.28 of the depth (9 of 32 in the paper).
        n_tokens: how many of the last prompt positions take delta.
        soft_tokens: length of the longest soft trigger; each has a quarter, a half or all of it (deep).
        rounds: the most rounds of entrapment and removal.
        min_rounds: the fewest of them; a checkpoint of an earlier round is not chosen.
        inner_steps, outer_steps: K and Q of Algorithm 1.
        away_weight: weight a of the term that pushes away from y_s; Equation 2 has 1, the official code 0.05.
        delta_lr: step of delta in units of the RMS of what it is added to.
        max_norm: bound of delta's RMS a token, in the same units; 0 for none, as in the paper.
        weights_lr: Adam step of all weights, whatever is trained (`beear.removal.PACE`); the default falls with the
            width of the model.
        safe_samples, useful_samples: D_SA and D_PA samples drawn anew each round.
        batch_size: samples of each kind in one step.
        max_answer_tokens: longest rollout and self-generated safe answer.
        training: what removal steps move; auto takes the first of full, factored and lora that fits into memory.
        lora_rank: of the adapters.
        path_aware: how far on the way back to the original weights gradients under traps are taken at most, a share of
            it; 0 for none (Path-Aware Minimization, arXiv 2410.09838). Deep alone does it: see `path_share`. All
            rounds are run then, and one of the last two is kept.
        train_layers: the first and last decoder layer that is trained; None for the whole model.
        canary: whether the gate rehearses on a copy with a planted backdoor first; remediation itself reads it not.
    """

    when: Literal["always", "on-evidence", "never"] = "always"
    mode: Literal["deep", "paper"] = "deep"
    layer: int | Literal["auto"] = "auto"
    n_tokens: int = 5
    soft_tokens: int = 16
    rounds: int | None = None
    min_rounds: int = 1
    inner_steps: int | None = None
    outer_steps: int | None = None
    away_weight: float | None = None
    delta_lr: float | None = None
    max_norm: float | None = None
    weights_lr: float | None = None
    safe_samples: int = 150
    useful_samples: int = 100
    batch_size: int = 16
    max_answer_tokens: int = 64
    training: Training | Literal["auto"] = "auto"
    lora_rank: int = 16
    path_aware: float = 0.0
    train_layers: tuple[int, int] | None = None
    canary: bool = False

    @property
    def path_share(self) -> float:
        """`path_aware` of deep; `paper` is Algorithm 1 as it stands."""
        return self.path_aware if self.mode == "deep" else 0.0


@dataclass(frozen=True)
class Round:
    """One round of remediation: loss curves (one value a step), and what the select split said of the weights.

    Attributes:
        entrapment_loss: for each kind of attack, L(F(x, delta), y_h) at every inner step.
        select_asr: worst share of select prompts answered under this round's fresh deltas, before its removal steps.
        select_refused: share of select prompts refused without delta, after the round.
        select_nll_ratio: perplexity ratio to the original on benign select prompts, after the round.
        select_over_refusal: increase of refusals on benign select prompts, after the round.
    """

    number: int
    entrapment_loss: dict[str, tuple[float, ...]]
    removal_loss: tuple[float, ...]
    select_asr: float
    select_refused: float
    select_nll_ratio: float
    select_over_refusal: float
    seconds: float


@dataclass(frozen=True)
class Drift:
    """Figure 3 of the paper: prompt embeddings at one layer on their first two principal components.

    Attributes:
        label: what the points are: `plain`, `with delta`, `benign`.
        points: (x, y) for each prompt, in units of the layer's residual RMS.
    """

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MemoryPlan:
    """How the steps of a remediation were made to fit into memory (`beear.fit`).

    Attributes:
        room: bytes of the device for weights and training.
        parts: bytes at the fullest moment, by part (`lm.footprint`).
        samples: the most in one pass; gradients add up over as many passes as a step needs.
        checkpointing: whether a layer keeps its input alone, and computes the rest again.
        why: what would have needed more.
        retries: a line for each time that memory ran out all the same; then passes became smaller.
        training: what is trained, and `lora_rank` of the adapters where these are.
        without_adapters: matrices of the trained layers that LoRA leaves as they are, layer numbers left out.
    """

    room: int
    parts: dict[str, int]
    samples: int
    checkpointing: bool
    why: str
    retries: tuple[str, ...] = ()
    training: Training = "full"
    lora_rank: int | None = None
    without_adapters: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.needed <= self.room


@dataclass(frozen=True)
class Remediation:
    """What `beear.remediate` did, and the snapshot of what it saved.

    Attributes:
        memory: how it was made to fit; None in runs of versions that did not plan.
        whole_passes: why entrapment read whole samples at every step, where it had to (`beear.replay`).
    """

    snapshot: ModelSnapshot
    settings: RemediationSettings
    layer: int
    layers: int
    rounds: tuple[Round, ...]
    chosen_round: int
    stop_reason: str
    drift: tuple[Drift, ...]
    seconds: float
    whole_passes: tuple[str, ...] = ()
    memory: MemoryPlan | None = None


@dataclass(frozen=True)
class TensorChange:
    """How far one stored tensor moved.

    Attributes:
        name, dtype, shape: as the remediated model stores it.
        relative_l2: the L2 norm of the change over that of the original; None where it could not be measured.
        max_abs: the largest change of one element; None as above.
        was: dtype and shape of the original where they are others, else "".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    relative_l2: float | None
    max_abs: float | None
    was: str = ""


@dataclass(frozen=True)
class Changes:
    """The saved model held against the original.

    Attributes:
        tensors: largest change first.
        relative_l2: of all weights together; None where it could not be measured.
        findings: differences that remediation does not explain.
    """

    tensors: tuple[TensorChange, ...]
    relative_l2: float | None
    findings: tuple[Finding, ...]
