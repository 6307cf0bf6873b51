"""What may stand in the files that `utility` names: questions, instructions and their checks, tasks of lm-eval."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from beear_gate.policy_files.fields import Count, Part, Text, Texts
from beear_gate.policy_files.text import normalized

_Many = Annotated[int, Field(ge=0, le=100_000)]


class QuestionPart(Part):
    """A row of multiple choice; `answer` is the text of the right choice."""

    prompt: Text
    choices: Annotated[Texts, Field(min_length=2)]
    answer: Text
    category: Text | None = None

    @model_validator(mode="after")
    def _one_choice_is_right(self) -> QuestionPart:
        if self.answer not in self.choices:
            raise ValueError(f"has the answer {self.answer!r}, which is none of its choices: correct one of them")
        if len({normalized(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError("has two choices that differ in case or spaces alone: change one")
        return self


class SpanPart(Part):
    at_least: _Many = 0
    at_most: _Many | None = None

    @model_validator(mode="after")
    def _is_no_gap(self) -> SpanPart:
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError("has at_most below at_least: exchange them")
        return self


def _or_exactly(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return {"at_least": value, "at_most": value} if whole else value


SpanSource = Annotated[SpanPart, BeforeValidator(_or_exactly)]


class ChecksPart(Part):
    words: SpanSource | None = None
    sentences: SpanSource | None = None
    paragraphs: SpanSource | None = None
    lines: SpanSource | None = None
    bullets: SpanSource | None = None
    placeholders: SpanSource | None = None
    highlights: SpanSource | None = None
    contains: Texts = ()
    excludes: Texts = ()
    times: dict[Text, SpanSource] = Field(default_factory=dict)
    starts_with: Text | None = None
    ends_with: Text | None = None
    case: Literal["lower", "upper"] | None = None
    valid_json: Annotated[bool, Field(alias="json")] = False
    quoted: bool = False
    title: bool = False

    @model_validator(mode="after")
    def _asks_for_something(self) -> ChecksPart:
        if not any(getattr(self, name) for name in self.__class__.model_fields):
            raise ValueError("must ask for something: name at least one check")
        return self


class InstructionPart(Part):
    prompt: Text
    checks: ChecksPart
    category: Text | None = None


class MetricPart(Part):
    metric: Text
    aggregation: Text = "mean"
    higher_is_better: Literal[True] = True
    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: Texts = ()


class TaskGenerationPart(Part):
    """Greedy, because a difference between two samples is no difference between two models."""

    until: Texts = ()
    max_gen_toks: Count = 256
    do_sample: Literal[False] = False


class DataPart(Part):
    data_files: Text | dict[Text, Text]
    field: Text | None = None
    delimiter: Text | None = None


class HarnessPart(Part):
    """A task of lm-eval as far as it is data: nothing here imports code, opens a network or runs what a model wrote.

    Templates are Jinja without a sandbox, so a task is as trusted as the policy that names it.
    """

    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    task_alias: Text | None = None
    dataset_path: Literal["json", "csv"]
    dataset_name: Text | None = None
    dataset_kwargs: DataPart
    training_split: Text | None = None
    validation_split: Text | None = None
    test_split: Text | None = None
    fewshot_split: Text | None = None
    num_fewshot: Annotated[int, Field(ge=0, le=100)] = 0
    fewshot_delimiter: str | None = None
    target_delimiter: str | None = None
    description: str = ""
    output_type: Literal["multiple_choice", "generate_until"]
    doc_to_text: Text
    doc_to_target: Text | int
    doc_to_choice: Text | list[Text] | None = None
    gen_prefix: Text | None = None
    generation_kwargs: TaskGenerationPart | None = None
    filter_list: list[dict[str, Any]] | None = None
    metric_list: Annotated[list[MetricPart], Field(min_length=1)]
    metadata: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_something_to_score(self) -> HarnessPart:
        if self.test_split is None and self.validation_split is None:
            raise ValueError("must name a test_split or a validation_split")
        return self
