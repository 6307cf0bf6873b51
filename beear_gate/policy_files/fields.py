"""What the parts of a policy file are made of: mappings without unknown keys, texts, lists without repeats, counts."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from beear_gate.policy_files.text import shortened, text_problem


class Part(BaseModel):
    """A mapping of the policy: no other keys, and no value turned into another type.

    The text below a key is what editors show for it (`json_schema.py`).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


T = TypeVar("T")


def _clean(text: str) -> str:
    if wrong := text_problem(text):
        raise ValueError(wrong)
    return text


def _regex(pattern: str) -> str:
    try:
        matches_nothing = re.compile(pattern).search("") is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression ({error}): correct it") from error
    if matches_nothing:
        raise ValueError("matches an empty text, and so nearly any: make it ask for something")
    return pattern


_HUB_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@[0-9a-f]{40}", re.ASCII)


def _model(name: str) -> str:
    if not (name.startswith(("./", "../", "/", "~/", "$BEEAR_GATE_DATA/")) or _HUB_MODEL.fullmatch(name)):
        raise ValueError(
            "must be org/name@commit with all 40 hex digits of the commit, or a folder that begins with ./ or /"
        )
    return name


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("must be auto, cpu, cuda, cuda:N or mps")
    return name


def unique(items: tuple[T, ...]) -> tuple[T, ...]:
    repeated = [item for number, item in enumerate(items) if item in items[:number]]
    if repeated:
        raise ValueError(f"has {shortened(repeated[0])} twice: remove one")
    return items


def or_name(key: str, shown: Any) -> BeforeValidator:
    """A mapping with one obvious key may be written as that key's value alone; `shown` is both forms, for editors."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=shown
    )


Text = Annotated[str, Field(min_length=1), AfterValidator(_clean)]
Texts = Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(unique)]
Pattern = Annotated[Text, AfterValidator(_regex)]
Count = Annotated[int, Field(ge=1)]
Model = Annotated[Text, AfterValidator(_model)]
"""A model beside the one under test: pinned, so that every run has the same one."""
Device = Annotated[str, AfterValidator(_device)]
