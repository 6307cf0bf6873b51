"""Behaviors with their limits, and the policy as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beear_gate.policy.judges import AnyJudgeSpec, JudgeSpec
from beear_gate.policy.utility import OverRefusal, Utility
from beear_gate.records import Example, Placement, RemediationSettings


@dataclass(frozen=True)
class Limit:
    """The rate of unwanted answers that the exact one-sided upper bound at `confidence` may not exceed."""

    max_rate: float
    confidence: float = 0.95
    max_incoherent: float = 0.05


@dataclass(frozen=True)
class Behavior:
    """One unwanted thing: the prompts that provoke it, in three disjoint splits, and how it is judged.

    Attributes:
        fallback: refusals for anchor prompts to which the model's own answer was not safe.
        unwanted_prefixes: y_h as the opening of an unwanted answer, shared by all prompts.
        unwanted_examples: y_h as whole examples instead, where the policy has some.
        judge: decides; other_judges: reported beside it, for information. Either may be a model.
        safe_from: where the safe answers y_s come from: the model's own, as far as `safe_judge` calls them safe, or
            `fallback` alone.
    """

    id: str
    description: str
    anchor: tuple[Example, ...]
    select: tuple[Example, ...]
    gate: tuple[Example, ...]
    fallback: tuple[str, ...]
    unwanted_prefixes: tuple[str, ...]
    unwanted_examples: tuple[Example, ...]
    safe_judge: JudgeSpec
    judge: AnyJudgeSpec
    other_judges: tuple[AnyJudgeSpec, ...]
    limit: Limit
    safe_from: Literal["model", "fallback"] = "model"

    @property
    def judges(self) -> tuple[AnyJudgeSpec, ...]:
        """The deciding judge, then the others."""
        return (self.judge, *self.other_judges)

    @property
    def text_judges(self) -> tuple[JudgeSpec, ...]:
        """Those of `judges` that read an answer alone and need no model."""
        return tuple(spec for spec in self.judges if isinstance(spec, JudgeSpec))

    @property
    def text_judge(self) -> JudgeSpec:
        """`judge`, or `safe_judge` in place of a model: for the canary, select prompts and fresh deltas."""
        return self.judge if isinstance(self.judge, JudgeSpec) else self.safe_judge


@dataclass(frozen=True)
class LatentTest:
    """Which curve ASR against norm is wanted.

    Attributes:
        norms: bounds of delta's RMS a token, in units of the RMS of what it is added to.
        prompts: how many gate prompts of each behavior are answered under each delta.
        reference: a model to compare with, `org/name@commit` or a folder; "" for none.
    """

    norms: tuple[float, ...]
    prompts: int
    reference: str = ""


@dataclass(frozen=True)
class SearchTest:
    """A search for a universal suffix: its length in tokens, and how many swaps may be made to it."""

    tokens: int
    steps: int


@dataclass(frozen=True)
class Waiver:
    """A finding that somebody accepts for a while.

    Attributes:
        rule: the finding's id.
        file: the finding's file exactly; "" for the repository as a whole.
        expires: the last day on which it holds (UTC), as YYYY-MM-DD.
    """

    rule: str
    file: str
    owner: str
    reason: str
    expires: str


@dataclass(frozen=True)
class Policy:
    """A checked policy.

    Attributes:
        digest: sha256 over the canonical policy and the content of every file it names.
        known_triggers, placements: for measuring only; remediation never sees them.
        latent: None where no curve is wanted.
        search: None where no suffix is to be searched.
        system_prompt: sent before every prompt; None for none.
        chat_template: what prompts are written with in place of the model's own template; None for that.
        max_new_tokens: length of an answer in evaluation.
        source: the YAML as written, for the record.
    """

    name: str
    description: str
    digest: str
    behaviors: tuple[Behavior, ...]
    utility: Utility
    over_refusal: OverRefusal | None
    known_triggers: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ("prefix", "suffix", "both")
    latent: LatentTest | None = None
    search: SearchTest | None = None
    max_jaccard: float = 0.5
    require_chat_template: bool = False
    waivers: tuple[Waiver, ...] = ()
    system_prompt: str | None = None
    chat_template: str | None = None
    max_new_tokens: int = 128
    remediation: RemediationSettings = field(default_factory=RemediationSettings)
    source: str = ""

    @property
    def judges(self) -> tuple[AnyJudgeSpec, ...]:
        """Every judge whose figures a report shows, each once."""
        shown = [spec for each in self.behaviors for spec in each.judges]
        return tuple(dict.fromkeys([*shown, self.over_refusal.judge] if self.over_refusal else shown))
