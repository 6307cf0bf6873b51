"""What may stand under `judge` in a policy file: a judge that reads text alone, a served one, or a model."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from beear_gate.policy import ClassifierJudgeSpec, ClassifierStyle, HttpJudgeSpec, JudgeName
from beear_gate.policy_files.fields import Count, Device, Model, Part, Pattern, Text, Texts, or_name, unique


def _judge_name(name: object) -> object:
    if name in ("http", "classifier"):
        raise ValueError(
            f"must be a judge that reads text alone here, because remediation uses it: {name} may only stand under "
            "judge and other_judges of a behavior"
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


class JudgePart(Part):
    name: Annotated[JudgeName, BeforeValidator(_judge_name, json_schema_input_type=JudgeName | Literal["refusal"])]
    patterns: Annotated[tuple[Pattern, ...], Field(strict=False), AfterValidator(unique)] = ()
    """Regular expressions: what marker looks for, or further openings of a refusal."""

    @model_validator(mode="after")
    def _patterns_fit(self) -> JudgePart:
        if self.name == "marker" and not self.patterns:
            raise ValueError("needs patterns: the judge marker knows no words of its own")
        if self.name == "code" and self.patterns:
            raise ValueError("must have no patterns: the judge code reads the program")
        if self.name == "refusal-keywords-paper" and self.patterns:
            raise ValueError(
                "must have no patterns: its list is the paper's, as refusal-prefix, needless-refusal and marker are not"
            )
        return self


class PricesPart(Part):
    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    currency: Annotated[Text, Field(max_length=12)] = "USD"


class EndpointPart(Part):
    """Where a served judge is, and what it may cost."""

    name: Literal["http"]
    url: Annotated[Text, AfterValidator(_endpoint)]
    model: Annotated[Text, Field(max_length=200)]
    key_env: Annotated[str, AfterValidator(_variable)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=64)] = 8
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    max_reply_tokens: Annotated[int, Field(ge=16, le=32768)] = 512
    max_requests: Count | None = None
    max_tokens: Count | None = None
    prices: PricesPart | None = None


class HttpJudgePart(EndpointPart):
    rubric: Literal["qi", "harmbench", "strongreject"]
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _threshold_fits(self) -> HttpJudgePart:
        if self.rubric != "strongreject" and "threshold" in self.model_fields_set:
            raise ValueError("must have no threshold: only the rubric strongreject gives a score")
        return self


class QualityPart(EndpointPart):
    """The judge of `utility.quality`."""

    rubric: Literal["quality"] = "quality"


class LabelsPart(Part):
    complied: Annotated[Texts, Field(min_length=1)]
    refused: Texts = ()

    @model_validator(mode="after")
    def _apart(self) -> LabelsPart:
        if both := set(self.complied) & set(self.refused):
            raise ValueError(f"has {min(both)!r} under both complied and refused: remove one")
        return self


class ClassifierJudgePart(Part):
    name: Literal["classifier"]
    model: Model
    """org/name@commit, or a folder."""
    style: ClassifierStyle
    """How the model was trained to be asked and to answer."""
    labels: LabelsPart | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Probability of the labels of complied from which on an answer counts so."""
    batch_size: Count = 16
    device: Device | None = None

    @model_validator(mode="after")
    def _labels_fit(self) -> ClassifierJudgePart:
        if self.style == "sequence" and self.labels is None:
            raise ValueError("needs labels: {complied: [...]}, because the style sequence knows no words of its own")
        if self.style != "sequence" and (self.labels or "threshold" in self.model_fields_set):
            raise ValueError("must have neither labels nor threshold: only the style sequence gives probabilities")
        return self


TAGS: dict[object, type[Part]] = {
    "(text judge)": JudgePart,
    "(http judge)": HttpJudgePart,
    "(classifier judge)": ClassifierJudgePart,
}
"""What pydantic puts among the keys of an error's place, to say which of them it was; the document has no such key."""
ShortName = JudgeName | Literal["refusal"]
TextJudge = Annotated[JudgePart, or_name("name", JudgePart | ShortName)]
Judge = Annotated[
    Annotated[JudgePart, Tag("(text judge)")]
    | Annotated[HttpJudgePart, Tag("(http judge)")]
    | Annotated[ClassifierJudgePart, Tag("(classifier judge)")],
    Discriminator(lambda given: _tag(given)),
    or_name("name", JudgePart | HttpJudgePart | ClassifierJudgePart | ShortName),
]
AnyJudgePart = JudgePart | HttpJudgePart | ClassifierJudgePart


def _tag(given: object) -> str:
    tag = f"({given.get('name')} judge)" if isinstance(given, dict) else ""
    return tag if tag in TAGS else "(text judge)"


def shown_name(judge: AnyJudgePart) -> str:
    """The name that its figures carry."""
    if isinstance(judge, JudgePart):
        return judge.name
    if isinstance(judge, ClassifierJudgePart):
        return ClassifierJudgeSpec(judge.model, judge.style).name
    return HttpJudgeSpec(judge.url, judge.model, judge.rubric).name
