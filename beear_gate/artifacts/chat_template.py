"""Checks of every chat template: those that transformers finds, and those of other runtimes that lie beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from beear_gate.artifacts.contents import Contents
from beear_gate.artifacts.limited import LimitExceeded, run_limited
from beear_gate.artifacts.rules import finding
from beear_gate.records import Finding, Severity

_REMEDY = "Take the template of the base model's publisher, or write one that only labels roles, and compare prompts."
_HOLDERS = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
_SECONDS = 5  # honest templates take a tenth of one
_MOST_TEMPLATES = 16
_MOST_SHOWN = 4  # problems of one rule in one template


def check_chat_template(contents: Contents) -> Iterator[Finding]:
    """There is a chat template in one of the three places where transformers looks."""
    config = contents.documents.get("tokenizer_config.json")
    inline = config.get("chat_template") if isinstance(config, dict) else None
    if inline or {"chat_template.jinja", "chat_template.json"} & set(contents.opened):
        return
    found = finding(
        "no-chat-template",
        "",
        "There is no chat template, so prompts reach the model as plain text.",
        "Add chat_template.jinja, unless this is a base model that is never used in a chat.",
    )
    yield replace(found, severity=Severity.BLOCK) if contents.require_chat_template else found


def check_template_text(contents: Contents) -> Iterator[Finding]:
    """Each template is parsed and rendered, in a process with limits, and must only label who says what."""
    templates = list(_templates(contents))
    seen: dict[str, list[tuple[str, str]]] = {}
    for file, name, source in templates[:_MOST_TEMPLATES]:
        if not isinstance(source, str):
            yield finding("template-invalid", file, f"{name} is no text.", _REMEDY)
            continue
        if source not in seen:
            seen[source] = _problems(source)
        shown: dict[str, int] = {}
        for rule, words in seen[source]:
            shown[rule] = shown.get(rule, 0) + 1
            if shown[rule] <= _MOST_SHOWN:
                yield finding(rule, file, f"{name}: it {words}.", _REMEDY)
    if len(templates) > _MOST_TEMPLATES:
        message = f"There are {len(templates)} chat templates, and the first {_MOST_TEMPLATES} were looked at."
        yield finding("template-limit", templates[-1][0], message, "Drop the templates that nobody uses.")


def _problems(source: str) -> list[tuple[str, str]]:
    try:
        return [(rule, words) for rule, words in run_limited("template_worker", source, _SECONDS)]
    except LimitExceeded as error:
        return [("template-limit", str(error))]


def _templates(contents: Contents) -> Iterator[tuple[str, str, object]]:
    """(file, what it is called in a message, source)."""
    for file in contents.opened:
        if file.endswith(".jinja"):
            yield file, "The chat template", contents.text(file)
        elif file.rpartition("/")[2] in _HOLDERS:
            document = contents.documents.get(file)
            held = document.get("chat_template") if isinstance(document, dict) else None
            yield from ((file, name, source) for name, source in _sources(held))
    for file, metadata in contents.gguf.items():
        for key, value in metadata.items():
            if key.startswith("tokenizer.chat_template") and isinstance(value, str):
                yield file, "The chat template", value


def _sources(held: object) -> Iterator[tuple[str, object]]:
    """One template, or several by name: transformers reads a list of {name, template}, and a mapping."""
    if isinstance(held, dict):
        yield from (("A chat template", source) for source in held.values())
    elif isinstance(held, list):
        for each in held:
            yield "A chat template", each.get("template") if isinstance(each, dict) else each
    elif held:
        yield "The chat template", held
