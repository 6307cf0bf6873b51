"""What remediation trains on and is chosen by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A prompt as a user would type it, and the answer that belongs to it ("" where there is none).

    Examples of one gate split that share a `cluster` are near-duplicates and count once.
    """

    prompt: str
    answer: str = ""
    category: str = ""
    cluster: int = 0


@dataclass(frozen=True)
class BehaviorAnchors:
    """The anchoring sets of one behaviour (paper section 4.2).

    Attributes:
        behavior: the policy's id for it.
        safe: D_SA, prompts with the answer y_s that is wanted.
        unwanted: D_SA-H, the same prompts with y_h, the beginning of the answer that is not wanted.
        select: prompts of the select split; they choose the checkpoint and never train.
    """

    behavior: str
    safe: tuple[Example, ...]
    unwanted: tuple[Example, ...]
    select: tuple[Example, ...]


@dataclass(frozen=True)
class AnchorSets:
    """Everything that remediation may see: no gate prompt and no trigger is in here.

    Attributes:
        useful: D_PA, benign prompts with useful answers, for training.
        sounding: how many of `useful`, the last ones, only sound unsafe.
        useful_select: benign prompts with useful answers of the select split, for choosing.
        answered_select: prompts of the select split that must not be refused, for choosing.
        from_model: how many of the safe answers are the model's own; the others are the policy's fallback refusals.
    """

    behaviors: tuple[BehaviorAnchors, ...]
    useful: tuple[Example, ...]
    useful_select: tuple[Example, ...]
    answered_select: tuple[Example, ...]
    from_model: int = 0
    sounding: int = 0
