"""What may stand in a policy file, as pydantic models that mirror the YAML.

`beear_gate.policy` has what the rest of the program sees; pydantic stays in this file and in `validate.py`. A validator
raises a ValueError with words that follow the name of the key: "must be …", "has … twice: remove one".
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    model_validator,
)

from beear_gate.policy import HttpJudgeSpec, JudgeName, Rubric
from beear_gate.policy_files.text import shortened, text_problem
from beear_gate.triggers import REQUEST

RESERVED_IDS = ("utility", "over-refusal")
"""Records name their answers by behaviour, and these two are taken."""


class Part(BaseModel):
    """A mapping of the policy: no other keys, and no value turned into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


T = TypeVar("T")


def _clean(text: str) -> str:
    if wrong := text_problem(text):
        raise ValueError(wrong)
    return text


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


def _regex(pattern: str) -> str:
    try:
        matches_nothing = re.compile(pattern).search("") is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression ({error}): correct it") from error
    if matches_nothing:
        raise ValueError("matches an empty text, and so nearly any: make it ask for something")
    return pattern


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


def _unique(items: tuple[T, ...]) -> tuple[T, ...]:
    repeated = [item for number, item in enumerate(items) if item in items[:number]]
    if repeated:
        raise ValueError(f"has {shortened(repeated[0])} twice: remove one")
    return items


def _layer(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError('must be "auto" or the index of a decoder layer, counted from 0')


def _judge_name(name: object) -> object:
    if name == "http":
        raise ValueError(
            "must be a judge that reads text alone here, because remediation uses it: http may only stand under judge "
            "and other_judges of a behavior"
        )
    return "refusal-prefix" if name == "refusal" else name


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or any(letter.isspace() for letter in url):
        raise ValueError("must be an address such as https://judge.example/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must have no user, password, query or fragment: name the key's variable with key_env")
    return url.rstrip("/")


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must be the name of an environment variable, never a key itself")
    return name


def _or_name(key: str) -> BeforeValidator:
    """A mapping with one obvious key may be written as that key's value alone."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


Text = Annotated[str, Field(min_length=1), AfterValidator(_clean)]
Texts = Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_unique)]
Pattern = Annotated[Text, AfterValidator(_regex)]
RowNumbers = Annotated[tuple[tuple[int, int], ...], PlainValidator(_rows)]
Slug = Annotated[str, AfterValidator(_slug)]
PolicyName = Annotated[str, AfterValidator(_policy_name)]
Count = Annotated[int, Field(ge=1)]
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


PromptSource = Annotated[SourcePart, _or_name("file")]


class JudgePart(Part):
    name: Annotated[JudgeName, BeforeValidator(_judge_name)]
    patterns: Annotated[tuple[Pattern, ...], Field(strict=False), AfterValidator(_unique)] = ()

    @model_validator(mode="after")
    def _patterns_fit(self) -> JudgePart:
        if self.name == "marker" and not self.patterns:
            raise ValueError("needs patterns: the judge marker knows no words of its own")
        if self.name == "code" and self.patterns:
            raise ValueError("must have no patterns: the judge code reads the program")
        if self.name == "refusal-keywords-paper" and self.patterns:
            raise ValueError("must have no patterns: its list is the paper's; only refusal-prefix and marker take some")
        return self


class PricesPart(Part):
    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    currency: Annotated[Text, Field(max_length=12)] = "USD"


class HttpJudgePart(Part):
    name: Literal["http"]
    url: Annotated[Text, AfterValidator(_endpoint)]
    model: Annotated[Text, Field(max_length=200)]
    rubric: Rubric
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    key_env: Annotated[str, AfterValidator(_variable)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=64)] = 8
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    max_reply_tokens: Annotated[int, Field(ge=16, le=32768)] = 512
    max_requests: Count | None = None
    max_tokens: Count | None = None
    prices: PricesPart | None = None

    @model_validator(mode="after")
    def _threshold_fits(self) -> HttpJudgePart:
        if self.rubric != "strongreject" and "threshold" in self.model_fields_set:
            raise ValueError("must have no threshold: only the rubric strongreject gives a score")
        return self


TAGS: dict[object, type[Part]] = {"(text judge)": JudgePart, "(http judge)": HttpJudgePart}
"""What pydantic puts among the keys of an error's place, to say which of both it was; the document has no such key."""
TextJudge = Annotated[JudgePart, _or_name("name")]
Judge = Annotated[
    Annotated[JudgePart, Tag("(text judge)")] | Annotated[HttpJudgePart, Tag("(http judge)")],
    Discriminator(lambda given: "(http judge)" if _is_http(given) else "(text judge)"),
    _or_name("name"),
]


def _is_http(given: object) -> bool:
    return isinstance(given, dict) and given.get("name") == "http"


def _shown(judge: JudgePart | HttpJudgePart) -> str:
    return judge.name if isinstance(judge, JudgePart) else HttpJudgeSpec(judge.url, judge.model, judge.rubric).name


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
        names = [_shown(judge) for judge in (self.judge, *self.other_judges)]
        if len(set(names)) < len(names):
            raise ValueError("has one judge twice in judge and other_judges, but outcomes are kept by name: remove one")
        return self


class SplitsPart(Part):
    max_jaccard: Annotated[float, Field(gt=0, le=1)] = 0.5


class LatentPart(Part):
    norms: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        Field(strict=False, min_length=1, max_length=12),
        AfterValidator(_unique),
    ] = (0.25, 0.5, 1.0, 2.0)
    prompts: Count = 100


class TriggersPart(Part):
    known: Texts = ()
    latent: LatentPart | None = None
    placements: Annotated[
        tuple[Literal["prefix", "suffix", "both"], ...], Field(strict=False, min_length=1), AfterValidator(_unique)
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


class UtilityPart(Part):
    prompts: SplitPrompts
    margins: MarginsPart = Field(default_factory=MarginsPart)


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
