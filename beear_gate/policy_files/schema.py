"""What may stand in a policy file, as pydantic models that mirror the YAML.

`beear_gate.policy` has what the rest of the program sees; pydantic stays in this file, the other `*schema.py`,
`fields.py` and `validate.py`. A validator raises a ValueError with words that follow the name of the key:
"must be …", "has … twice: remove one".
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema, model_validator

from beear_gate.policy_files.fields import Count, Device, Model, Part, Text, Texts, or_name, unique
from beear_gate.policy_files.judge_schema import Judge, QualityPart, TextJudge, shown_name
from beear_gate.policy_files.source_schema import PromptSource
from beear_gate.triggers import REQUEST

RESERVED_IDS = ("utility", "over-refusal", "instructions")
"""Records name their answers by behaviour, and these are taken."""
SLUG = "[a-z0-9]+(-[a-z0-9]+)*"
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def _slug(text: str) -> str:
    if not re.fullmatch(SLUG, text):
        raise ValueError("must be lowercase words joined by hyphens, such as insecure-code")
    if text in RESERVED_IDS:
        raise ValueError("is a name that the reports use for something else: choose another")
    return text


def _policy_name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError("must be of letters, digits, dots, hyphens and underscores, because files are named after it")
    return text


def _chat_template(text: str) -> str:
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except TemplateError as error:
        raise ValueError(f"is not a Jinja template ({error}): correct it") from error
    if "messages" not in text:
        raise ValueError("must go through `messages`, as the chat_template of a tokenizer does")
    return text


def _layer(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError('must be "auto" or the index of a decoder layer, counted from 0')


def _in_order(layers: tuple[int, int]) -> tuple[int, int]:
    if layers[0] > layers[1]:
        raise ValueError("must name the first layer before the last one, such as [8, 23]")
    return layers


def _day(value: object) -> str:
    """YAML makes dates of days, and quoted ones stay text."""
    try:
        return value.isoformat() if type(value) is date else date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise ValueError("must be a day, such as 2027-01-31") from None


Day = Annotated[str, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Slug = Annotated[str, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": f"^{SLUG}$"})]
PolicyName = Annotated[str, AfterValidator(_policy_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})]
Depth = Annotated[int, Field(ge=0)]
"""Number of a decoder layer, from 0."""
Layers = Annotated[tuple[Depth, Depth], Field(strict=False), AfterValidator(_in_order)]
Step = Annotated[float, Field(gt=0, le=1000)]
Confidence = Annotated[float, Field(ge=0.5, le=0.9999)]
Margin = Annotated[float, Field(ge=0, le=1)]


class Header(Part):
    apiVersion: Literal["beear-gate/v1"]
    """The version of this format."""
    kind: Literal["Policy"]
    name: PolicyName | None = None
    """What reports call the policy; only a file that is included needs none."""
    description: Text = ""
    include: Texts = ()
    """Packaged policies or paths: their behaviors join these, their sections count where this file has none."""


class RootHeader(Header):
    name: PolicyName


class SplitPrompts(Part):
    anchor: PromptSource
    """Prompts that train."""
    select: PromptSource
    """Prompts that choose a checkpoint."""
    gate: PromptSource
    """Prompts that decide."""


class OverRefusalPrompts(Part):
    gate: PromptSource
    select: PromptSource | None = None
    anchor: PromptSource | None = None


class SafePart(Part):
    source: Annotated[Literal["model", "fallback"], Field(alias="from")] = "model"
    """Safe answers: the model's own as far as the judge finds them safe, or those of the policy alone."""
    judge: TextJudge | None = None
    fallback: PromptSource | None = None
    """Safe answers for anchor prompts that bring none."""


class UnwantedPart(Part):
    prefixes: Texts = ()
    """Openings of an unwanted answer, shared by all prompts."""
    examples: PromptSource | None = None
    """Whole unwanted answers instead, with their prompts."""

    @model_validator(mode="after")
    def _one_of_both(self) -> UnwantedPart:
        if bool(self.prefixes) == (self.examples is not None):
            raise ValueError('must have either "prefixes" (a list of openings) or "examples" (a file)')
        return self


class LimitPart(Part):
    max_rate: Annotated[float, Field(ge=1e-6, lt=1)]  # 0 can be proven by no number of prompts
    """Highest rate of unwanted answers, as the upper bound at `confidence`."""
    confidence: Confidence = 0.95
    max_incoherent: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Highest rate of broken answers, shown in the same way."""


class BehaviorPart(Part):
    id: Slug
    """Lowercase words joined by hyphens; reports name figures by it."""
    description: Text = ""
    prompts: SplitPrompts
    safe: SafePart
    unwanted: UnwantedPart
    judge: Judge
    """What says whether an answer is the unwanted one; decides."""
    other_judges: Annotated[tuple[Judge, ...], Field(strict=False)] = ()
    """Reported beside it, deciding nothing."""
    limit: LimitPart

    @model_validator(mode="after")
    def _judges_differ(self) -> BehaviorPart:
        names = [shown_name(judge) for judge in (self.judge, *self.other_judges)]
        if len(set(names)) < len(names):
            raise ValueError("has one judge twice in judge and other_judges, but outcomes are kept by name: remove one")
        return self


class SplitsPart(Part):
    max_jaccard: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Prompts with a larger share of common words are near-duplicates; 1 compares whole texts."""


class LatentPart(Part):
    norms: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        Field(strict=False, min_length=1, max_length=12),
        AfterValidator(unique),
    ] = (0.25, 0.5, 1.0, 2.0)
    prompts: Count = 100
    """Gate prompts of each behavior under each perturbation."""
    reference: Model | None = None
    """A model to compare with: org/name@commit, or a folder."""


class SearchPart(Part):
    tokens: Annotated[int, Field(ge=1, le=64)] = 12
    """Length of the suffix."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Swaps of one token each."""


class TriggersPart(Part):
    known: Texts = ()
    """Strings to measure with, never to remediate with; `{prompt}` in one stands for the request."""
    latent: LatentPart | None = None
    """The curve of answers against the size of fresh perturbations, for information."""
    search: SearchPart | None = None
    """A suffix of real tokens, fitted to each model, for information."""
    placements: Annotated[
        tuple[Literal["prefix", "suffix", "both", "middle"], ...],
        Field(strict=False, min_length=1),
        AfterValidator(unique),
    ] = ("prefix", "suffix", "both")

    @model_validator(mode="after")
    def _two_parts_stand_at_both_ends(self) -> TriggersPart:
        if any(REQUEST in trigger for trigger in self.known) and self.placements != ("both",):
            raise ValueError(f"has a trigger around {REQUEST}, which has one place only: write placements: [both]")
        return self


class MarginsPart(Part):
    nll_ratio: Annotated[float, Field(ge=1, le=100)] = 1.05
    """Highest perplexity on reference answers, as a multiple of the original's."""
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Largest drop of the share of reference tokens that are the first choice."""
    confidence: Confidence = 0.95
    choices: Margin | None = None
    """Largest drop of the share of multiple-choice questions answered right."""
    instructions: Margin | None = None
    """Largest drop of the share of instructions followed."""
    degenerate: Margin | None = None
    """How many more benign answers, as a share, may be broken or cut off."""
    tasks: Margin | None = None
    """Largest drop of each metric of each task of lm-eval."""
    quality: Annotated[float, Field(ge=0, le=9)] | None = None
    """Largest loss of the mean grade from 1 to 10."""


class RewardPart(Part):
    model: Model
    """A reward model: org/name@commit, or a folder."""
    behaviors: bool = False
    """Whether answers to the gate prompts of behaviors are scored too, for information."""
    max_decrease: Annotated[float, Field(ge=0)] | None = None
    """How far the mean score on benign answers may fall, in the model's own units."""
    batch_size: Count = 16
    device: Device | None = None


class UtilityPart(Part):
    prompts: SplitPrompts
    choices: Text | None = None
    """JSONL of multiple-choice questions: prompt, choices, answer."""
    instructions: Text | None = None
    """JSONL of prompts whose answer a program can verify: prompt, checks."""
    tasks: Text | None = None
    """A folder of tasks of lm-eval, which needs the extra `lm-eval`."""
    quality: QualityPart | None = None
    """A served judge that grades benign answers from 1 to 10."""
    margins: MarginsPart = Field(default_factory=MarginsPart)
    reward: Annotated[RewardPart, or_name("model", RewardPart | Model)] | None = None

    @model_validator(mode="after")
    def _margins_have_something_to_hold(self) -> UtilityPart:
        for key in ("choices", "instructions", "tasks", "quality"):
            if getattr(self.margins, key) is not None and getattr(self, key) is None:
                raise ValueError(f"has a margin for {key} but names no {key}: add {key} or remove margins.{key}")
        return self


class OverRefusalPart(Part):
    prompts: OverRefusalPrompts
    judge: TextJudge | None = None
    max_increase: Annotated[float, Field(ge=0, le=1)] = 0.03
    """How many more of these harmless prompts may be refused, as a share."""
    confidence: Confidence = 0.95

    @model_validator(mode="after")
    def _refused_means_refused(self) -> OverRefusalPart:
        if self.judge and self.judge.name == "needless-refusal":
            raise ValueError("has a judge that calls an answer refused; here it must be a refusal: name refusal-prefix")
        return self


class WaiverPart(Part):
    rule: Slug
    file: str = ""
    owner: Text
    reason: Text
    expires: Day


class ArtifactsPart(Part):
    require_chat_template: bool = False
    """Whether a model without a chat template is blocked."""
    waivers: Annotated[tuple[WaiverPart, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _each_once(self) -> ArtifactsPart:
        unique(tuple((each.rule, each.file) for each in self.waivers))
        return self


class RemediationPart(Part):
    when: Literal["always", "on-evidence", "never"] = "always"
    """Which models are changed: every one, those that break a limit, or none."""
    mode: Literal["deep", "paper"] = "deep"
    """deep also trains the way back from a begun answer; paper is Algorithm 1 as published."""
    layer: Annotated[
        int | Literal["auto"],
        PlainValidator(_layer, json_schema_input_type=Literal["auto"] | Annotated[int, Field(ge=0)]),
    ] = "auto"
    n_tokens: Count = 5
    soft_tokens: Count = 16
    rounds: Count | None = None
    min_rounds: Count = 1
    inner_steps: Count | None = None
    outer_steps: Count | None = None
    away_weight: Annotated[float, Field(ge=0, le=1000)] | None = None
    delta_lr: Step | None = None
    max_norm: Annotated[float, Field(ge=0, le=1000)] | None = None
    weights_lr: Step | None = None
    safe_samples: Count = 150
    useful_samples: Count = 100
    batch_size: Count = 16
    max_answer_tokens: Count = 64
    training: Literal["auto", "full", "factored", "lora"] = "auto"
    """What removal steps move: all weights with Adam, all with factored second moments, adapters, or what fits."""
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 16
    path_aware: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far on the way back to the original weights gradients are taken at most: a share of it, 0 for none (deep)."""
    train_layers: Layers | None = None
    """First and last decoder layer that is trained; without it the whole model is."""
    canary: bool = False
    """Whether a backdoor of our own is planted in a copy first, to see whether it goes."""


class GenerationPart(Part):
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """Longest answer of an evaluation, in tokens."""
    system_prompt: Text | None = None
    """Sent before every prompt."""
    chat_template: Annotated[Text, AfterValidator(_chat_template)] | None = None


class PolicyFile(Header):
    """A whole file, for its keys and the JSON Schema; what is read is validated section by section (`validate.py`)."""

    behaviors: tuple[BehaviorPart, ...] = ()
    """Unwanted things, each with prompts, a judge and a limit; those of included files come before."""
    splits: SplitsPart = Field(default_factory=SplitsPart)
    triggers: TriggersPart = Field(default_factory=TriggersPart)
    utility: UtilityPart | None = None
    """Benign prompts, and how much worse a remediated model may be on them."""
    over_refusal: OverRefusalPart | None = None
    """Harmless prompts that sound harmful; null takes an included section away."""
    artifacts: ArtifactsPart = Field(default_factory=ArtifactsPart)
    remediation: RemediationPart = Field(default_factory=RemediationPart)
    generation: GenerationPart = Field(default_factory=GenerationPart)


TOP_LEVEL_KEYS = tuple(PolicyFile.model_fields)
