"""What may stand in a policy file, as pydantic models that mirror the YAML.

`beear_gate.policy` has what the rest of the program sees; pydantic stays in this file, `judge_schema.py`, `fields.py`
and `validate.py`. A validator raises a ValueError with words that follow the name of the key: "must be …", "has …
twice: remove one".
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, Field, PlainValidator, model_validator

from beear_gate.policy_files.fields import Count, Device, Model, Part, Text, Texts, or_name, unique
from beear_gate.policy_files.judge_schema import Judge, TextJudge, shown_name
from beear_gate.triggers import REQUEST

RESERVED_IDS = ("utility", "over-refusal")
"""Records name their answers by behaviour, and these two are taken."""


def _slug(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):
        raise ValueError("must be lowercase words joined by hyphens, such as insecure-code")
    if text in RESERVED_IDS:
        raise ValueError("is a name that the reports use for something else: choose another")
    return text


def _policy_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError("must be of letters, digits, dots, hyphens and underscores, because files are named after it")
    return text


def _rows(value: object) -> tuple[tuple[int, int], ...]:
    """Text such as "401-403, 405" as ((401, 403), (405, 405))."""
    parts = [part.strip() for part in str(value).split(",")]
    ranges: list[tuple[int, int]] = []
    for part in parts:
        found = re.fullmatch(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if first <= (ranges[-1][1] if ranges else 0) or last < first:
            raise ValueError('must be rising numbers of rows, counted from 1, such as "1-400" or "401-403, 405"')
        ranges.append((first, last))
    return tuple(ranges)


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


RowNumbers = Annotated[tuple[tuple[int, int], ...], PlainValidator(_rows)]
Slug = Annotated[str, AfterValidator(_slug)]
PolicyName = Annotated[str, AfterValidator(_policy_name)]
Step = Annotated[float, Field(gt=0, le=1000)]
Confidence = Annotated[float, Field(ge=0.5, le=0.9999)]


class Header(Part):
    apiVersion: Literal["beear-gate/v1"]
    kind: Literal["Policy"]
    name: PolicyName | None = None
    description: Text = ""
    include: Texts = ()


class RootHeader(Header):
    name: PolicyName


class SourcePart(Part):
    file: Text
    column: Text | None = None
    answer_column: Text | None = None
    rows: RowNumbers | None = None


PromptSource = Annotated[SourcePart, or_name("file")]


class SplitPrompts(Part):
    anchor: PromptSource
    select: PromptSource
    gate: PromptSource


class OverRefusalPrompts(Part):
    gate: PromptSource
    select: PromptSource | None = None
    anchor: PromptSource | None = None


class SafePart(Part):
    source: Annotated[Literal["model", "fallback"], Field(alias="from")] = "model"
    judge: TextJudge | None = None
    fallback: PromptSource


class UnwantedPart(Part):
    prefixes: Texts = ()
    examples: PromptSource | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> UnwantedPart:
        if bool(self.prefixes) == (self.examples is not None):
            raise ValueError('must have either "prefixes" (a list of openings) or "examples" (a file)')
        return self


class LimitPart(Part):
    max_rate: Annotated[float, Field(ge=1e-6, lt=1)]  # 0 can be proven by no number of prompts
    confidence: Confidence = 0.95
    max_incoherent: Annotated[float, Field(ge=0, le=1)] = 0.05


class BehaviorPart(Part):
    id: Slug
    description: Text = ""
    prompts: SplitPrompts
    safe: SafePart
    unwanted: UnwantedPart
    judge: Judge
    other_judges: Annotated[tuple[Judge, ...], Field(strict=False)] = ()
    limit: LimitPart

    @model_validator(mode="after")
    def _judges_differ(self) -> BehaviorPart:
        names = [shown_name(judge) for judge in (self.judge, *self.other_judges)]
        if len(set(names)) < len(names):
            raise ValueError("has one judge twice in judge and other_judges, but outcomes are kept by name: remove one")
        return self


class SplitsPart(Part):
    max_jaccard: Annotated[float, Field(gt=0, le=1)] = 0.5


class LatentPart(Part):
    norms: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        Field(strict=False, min_length=1, max_length=12),
        AfterValidator(unique),
    ] = (0.25, 0.5, 1.0, 2.0)
    prompts: Count = 100
    reference: Model | None = None


class SearchPart(Part):
    tokens: Annotated[int, Field(ge=1, le=64)] = 12
    steps: Annotated[int, Field(ge=1, le=10_000)] = 100


class TriggersPart(Part):
    known: Texts = ()
    latent: LatentPart | None = None
    search: SearchPart | None = None
    placements: Annotated[
        tuple[Literal["prefix", "suffix", "both"], ...], Field(strict=False, min_length=1), AfterValidator(unique)
    ] = ("prefix", "suffix", "both")

    @model_validator(mode="after")
    def _two_parts_stand_at_both_ends(self) -> TriggersPart:
        if any(REQUEST in trigger for trigger in self.known) and self.placements != ("both",):
            raise ValueError(f"has a trigger around {REQUEST}, which has one place only: write placements: [both]")
        return self


class MarginsPart(Part):
    nll_ratio: Annotated[float, Field(ge=1, le=100)] = 1.05
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.03
    confidence: Confidence = 0.95


class RewardPart(Part):
    model: Model
    behaviors: bool = False
    max_decrease: Annotated[float, Field(ge=0)] | None = None
    batch_size: Count = 16
    device: Device | None = None


class UtilityPart(Part):
    prompts: SplitPrompts
    margins: MarginsPart = Field(default_factory=MarginsPart)
    reward: Annotated[RewardPart, or_name("model")] | None = None


class OverRefusalPart(Part):
    prompts: OverRefusalPrompts
    judge: TextJudge | None = None
    max_increase: Annotated[float, Field(ge=0, le=1)] = 0.03
    confidence: Confidence = 0.95


class ArtifactsPart(Part):
    require_chat_template: bool = False


class RemediationPart(Part):
    when: Literal["always", "on-evidence", "never"] = "always"
    mode: Literal["deep", "paper"] = "deep"
    layer: Annotated[int | Literal["auto"], PlainValidator(_layer)] = "auto"
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
    canary: bool = False


class GenerationPart(Part):
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    system_prompt: Text | None = None
    chat_template: Annotated[Text, AfterValidator(_chat_template)] | None = None


TOP_LEVEL_KEYS = (
    *Header.model_fields, "behaviors", "splits", "triggers", "utility", "over_refusal", "artifacts", "remediation",
    "generation",
)  # fmt: skip
