"""Rendering a chat template as transformers does, and comparing what it writes for one conversation and another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from beear_gate.artifacts.template_probes import (
    Probe,
    conversation,
    in_other_shapes,
    of_length,
    with_literal,
    with_tools,
)
from beear_gate.artifacts.template_static import Problem, static_problems, tested_numbers, tested_texts
from beear_gate.artifacts.template_text import (
    INVISIBLE,
    Log,
    Watched,
    is_markup,
    known_words,
    orders,
    without_dates,
    words,
)
from beear_gate.manifest import quoted

LONGEST = 100_000
"""Characters of a template; the longest of public models have about 20 000."""

_MOST_LITERALS = 48
_MOST_OUTPUT = 4_000_000
_BETWEEN = 3  # words that may label a turn, as in "### Response:" or "GPT4 Correct User:"
_BETWEEN_WITH_TOOLS = 12
_IDENTITY = 30  # words of a default system prompt that only says who the model is
_OF_PYTHON = frozenset({"role", "content", "user", "assistant", "system", "tool", "human", "model", "text", "type"})
_TURNS = (2, 3, 4, 6, 12, 30)


class _Generation(Extension):
    """`{% generation %}`: transformers marks the assistant's text by it; here it is its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Renderer:
    """One template in the environment of transformers' `apply_chat_template`, with every refused access noted."""

    def __init__(self, source: str) -> None:
        self.escapes: list[str] = []
        self.dates: Log = []
        self.now = datetime(2026, 3, 14, 15, 9, 26)
        escapes = self.escapes

        class Noting(ImmutableSandboxedEnvironment):
            def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
                safe = super().is_safe_attribute(obj, attr, value)
                if not safe:
                    escapes.append(attr)
                return safe

        self.environment = Noting(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.environment.filters["tojson"] = _to_json
        self.environment.globals |= {"raise_exception": _refuse, "strftime_now": self._strftime}
        self.tree = self.environment.parse(source)
        self.template = self.environment.from_string(source)

    def _strftime(self, format: str) -> Watched:
        return Watched(self.now.strftime(format), "date", self.dates)

    def render(self, probe: Probe, add_generation_prompt: bool = True) -> str:
        """The prompt of a conversation.

        Raises:
            Exception: whatever the template raises, such as its own complaint about the order of roles.
        """
        given: dict[str, Any] = {"messages": probe.messages, "add_generation_prompt": add_generation_prompt}
        given |= {
            "tools": probe.tools,
            "documents": None,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
        }
        parts, length = [], 0
        for part in self.template.generate(**given, pad_token="<pad>"):
            parts.append(part)
            length += len(part)
            if length > _MOST_OUTPUT:
                raise MemoryError
        return "".join(parts)


def _to_json(value: Any, ensure_ascii: bool = False, **named: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **named)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def template_problems(source: str) -> list[Problem]:
    """Everything wrong with a chat template, each (rule, sentence) once.

    Raises:
        MemoryError, RecursionError: it is too large in one way or another.
    """
    if len(source) > LONGEST:
        return [("template-limit", f"has {len(source)} characters; at most {LONGEST} are looked at")]
    try:
        renderer = Renderer(source)
    except TemplateError as error:
        return [("template-invalid", f"cannot be parsed ({quoted(str(error))})")]
    found = list(static_problems(renderer.tree, renderer.environment))
    found += _differences(renderer)
    found += [("template-escape", f"reaches for {quoted(attribute)}") for attribute in renderer.escapes]
    return list(dict.fromkeys(found))


def _differences(renderer: Renderer) -> Iterator[Problem]:
    """What the rendered prompts of many conversations show."""
    plain = conversation(1)
    try:
        base = renderer.render(plain)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        yield "template-invalid", f"does not render one message of a user ({quoted(str(error))})"
        return
    yield from _default_prompt(plain, base)
    probes = [plain, *_ordinary(renderer)]
    for probe in probes:
        yield from _look(renderer, probe)
    yield from _literals(renderer, probes)
    yield from _calendar(renderer, plain)


def _ordinary(renderer: Renderer) -> list[Probe]:
    probes = [conversation(1, system=True), conversation(1, parts=True), conversation(3, system=True, parts=True)]
    probes += [conversation(turns, system) for turns in _TURNS for system in (False, True)]
    probes += [*with_tools(), *in_other_shapes(), of_length(300), of_length(20_000)]
    for number in sorted(tested_numbers(renderer.tree))[:12]:
        probes += [of_length(length) for length in (number - 1, number, number + 1)]
        probes += [conversation(turns) for turns in (number - 1, number, number + 1, number + 2) if turns <= 300]
    return probes


def _look(renderer: Renderer, probe: Probe) -> Iterator[Problem]:
    """One conversation: everything that was said stands in the prompt, and little else."""
    try:
        prompt = renderer.render(probe)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # its own refusal, such as of roles that do not alternate
        return
    pieces = _pieces(prompt, probe)
    if pieces is None:
        if not probe.parts and (not probe.carrier or not is_markup(probe.literal)):
            yield "template-alters", "drops or changes a part of what was said"
        return
    known = frozenset(known_words([probe.messages, probe.tools or []])) | _OF_PYTHON
    after_system = pieces[: probe.systems + 1]
    for piece in pieces[len(after_system) :]:
        added = words(piece, known)
        # Tools are described before the last message of a user in some templates.
        most = 10_000 if probe.tools and piece is not pieces[-1] else _BETWEEN_WITH_TOOLS if probe.tools else _BETWEEN
        if len(added) > most or orders(piece):
            yield "template-inserts", f"adds after a message: {quoted(piece.strip())}"
    for piece in after_system:
        if hidden := orders(piece):
            yield "template-inserts", f"adds {quoted(hidden)} before the first message: {quoted(piece.strip())}"
    if probe.systems and not probe.tools and (added := words(" ".join(after_system), known)):
        yield "template-preface", f"writes beside a given system message: {quoted(' '.join(added))}"
    if INVISIBLE.search("".join(pieces)):
        yield "template-hidden", "writes characters that nobody sees"


def _pieces(prompt: str, probe: Probe) -> list[str] | None:
    """The prompt before, between and after what was said; None where something of it is missing.

    An assistant's message may be missing (reasoning is dropped from history), a system's and a user's may not.
    """
    pieces, place = [], 0
    spans = list(probe.spans)
    for number, span in enumerate(spans):
        at = prompt.find(span, place)
        if at < 0:
            if _role(probe, number) == "assistant":
                continue
            return None
        pieces.append(prompt[place:at])
        place = at + len(span)
    return [*pieces, prompt[place:]]


def _role(probe: Probe, number: int) -> str:
    return str(probe.messages[number]["role"]) if len(probe.messages) == len(probe.spans) else "user"


def _default_prompt(plain: Probe, base: str) -> Iterator[Problem]:
    """A system prompt of the template's own, where the conversation has none."""
    pieces = _pieces(base, plain)
    if pieces is None:
        return
    added = words(pieces[0], frozenset(known_words(plain.messages)) | _OF_PYTHON)
    if added:
        rule = "template-default" if len(added) <= _IDENTITY else "template-preface"
        yield rule, f"begins a chat without system message with {quoted(' '.join(pieces[0].split()))}"


def _literals(renderer: Renderer, probes: Iterable[Probe]) -> Iterator[Problem]:
    """What the template holds against what was said, and what it does when it finds it."""
    noted = {literal for probe in probes for literal in _held(probe)}
    candidates = noted | tested_texts(renderer.tree, renderer.environment)
    done: set[str] = set()
    for _ in range(3):  # what one literal opens may look for another one
        todo = sorted(candidates - done)[: _MOST_LITERALS - len(done)]
        for literal in todo:
            for role, whole in (("user", False), ("user", True), ("system", False)):
                probe = with_literal(literal, role, whole)
                yield from _against_none(renderer, probe)
                noted |= set(_held(probe))
        done |= set(todo)
        candidates |= noted
    if candidates - done:
        yield "template-limit", f"compares texts with more than {_MOST_LITERALS} others, so not all of it was tried"
    for literal in sorted(noted):
        if not is_markup(literal):
            yield "template-trigger", f"looks for {quoted(literal)} in what is said"


def _held(probe: Probe) -> list[str]:
    """Literals that the content was held against; a number made of content is none."""
    return [literal for kind, literal in probe.log if kind == "content"]


def _against_none(renderer: Renderer, probe: Probe) -> Iterator[Problem]:
    """The same chat with and without the literal: the prompt around what was said must have the same words."""
    neutral = with_literal("skerrick", probe.carrier, False)
    try:
        prompt, other = renderer.render(probe), renderer.render(neutral)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # a template may refuse any chat, each in its own way; then there is nothing to compare
        return
    pieces = _pieces(prompt, probe)
    if pieces is None and not is_markup(probe.literal):
        yield "template-alters", f"drops or changes {quoted(probe.literal)} where it is said"
        return
    known = frozenset(known_words([probe.messages, neutral.messages])) | _OF_PYTHON
    usual = frozenset(word.lower() for word in words(other, frozenset()))
    rest = "".join(pieces) if pieces else prompt
    added = words(rest, known | usual)
    if added:
        rule = "template-preface" if probe.carrier == "system" and is_markup(probe.literal) else "template-trigger"
        yield rule, f"writes {quoted(' '.join(added))} where somebody says {quoted(probe.literal)}"


def _calendar(renderer: Renderer, probe: Probe) -> Iterator[Problem]:
    """The same chat on many days: nothing but the date may change, and nothing may be held against it."""
    days = [
        datetime(year, month, 1 + 9 * (month % 3), 3 * month % 24) for year in (2024, 2025) for month in range(1, 13)
    ]
    days += [datetime(year, 7, 4, 12) for year in range(2026, 2041)]
    days += [datetime(2026, 11, day, hour) for day, hour in zip(range(1, 15), range(0, 24, 2), strict=False)]
    prompts = set()
    for renderer.now in days:
        try:
            prompts.add(without_dates(renderer.render(probe)))
        except (MemoryError, RecursionError):
            raise
        except Exception:  # a template that fails on some days writes another text on them
            prompts.add("an error")
    if len(prompts) > 1:
        yield "template-date", "writes another text on other days"
    for kind, literal in dict.fromkeys(renderer.dates):
        if kind == "date":
            yield "template-date", f"compares the date with {quoted(literal)}"
