"""Holds a section of a policy against its model, and says in sentences what does not fit.

Every section is validated by itself, so that a mistake in one hides none in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from beear_gate.errors import Problem
from beear_gate.policy_files.fields import Part
from beear_gate.policy_files.judge_schema import TAGS
from beear_gate.policy_files.text import nearest, shortened, unknown_key
from beear_gate.policy_files.yaml_lines import Section

M = TypeVar("M", bound=Part)


def validate(model: type[M], section: Section, problems: list[Problem]) -> M | None:
    """The section as `model`; None, and every reason for it, where it does not fit."""
    try:
        return model.model_validate(section.value)
    except ValidationError as error:
        details = error.errors()
    meant = [_meant(model, detail) for detail in details if detail["type"] == "extra_forbidden"]
    for detail in details:
        # A mistyped key is one problem, not an unknown key and a missing one.
        if not (detail["type"] == "missing" and detail["loc"] in meant):
            place = section
            for key in detail["loc"]:
                place = place if key in TAGS else place[key]
            problems.append(place.problem(_sentence(model, detail, place.name)))
    return None


def probe(model: type[M], section: Section) -> M | None:
    """As `validate`, but silent: for the sound pieces of a section whose problems are already reported."""
    return validate(model, section, [])


def _meant(model: type[Part], detail: ErrorDetails) -> tuple[str | int, ...]:
    *around, key = detail["loc"]
    return (*around, nearest(str(key), _known_keys(model, detail["loc"])))


def _known_keys(model: type[Part], loc: tuple[str | int, ...]) -> list[str]:
    """The keys of the model in which the last key of `loc` stands."""
    found: type[Part] | None = model
    for key in loc[:-1]:
        if key in TAGS:
            found = TAGS[key]
        elif isinstance(key, str) and found is not None:
            fields = {field.alias or name: field.annotation for name, field in found.model_fields.items()}
            found = _model_in(fields.get(key))
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _model_in(annotation: Any) -> type[Part] | None:
    """The model inside an annotation such as `tuple[Annotated[JudgePart, …], ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


_SHORTHANDS = {
    "SourcePart": "a path, or a mapping with file or hub",
    "JudgePart": "the name of a judge, or a mapping with name and patterns",
}

_RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "string_type": lambda _: "text (quote it if it is)",
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "tuple_type": lambda _: "a list",
    "model_type": lambda context: _SHORTHANDS.get(context["class_name"], "a mapping"),
    "literal_error": lambda context: context["expected"],
    "greater_than": lambda context: f"more than {context['gt']:g}",
    "greater_than_equal": lambda context: f"at least {context['ge']:g}",
    "less_than": lambda context: f"less than {context['lt']:g}",
    "less_than_equal": lambda context: f"at most {context['le']:g}",
}


def _sentence(model: type[Part], detail: ErrorDetails, name: str) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(str(detail["loc"][-1]), _known_keys(model, detail["loc"]))
    if kind == "missing":
        return f"{name} is missing: add it."
    if kind in ("string_too_short", "too_short"):
        return f"{name} is empty: fill it in or remove the key."
    if kind == "value_error":
        return f"{name} {context['error']}."
    if kind not in _RULES:
        return f"{name} is wrong: {detail['msg']}."
    # Lists and mappings can be whole sections, not worth repeating.
    shown = {type(None): "nothing", list: "a list", dict: "a mapping"}.get(type(given)) or shortened(given)
    return f"{name} must be {_RULES[kind](context)}, not {shown}."
