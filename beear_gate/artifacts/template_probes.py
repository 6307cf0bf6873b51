"""The conversations that chat templates are rendered with: made-up words, which no template can have of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from beear_gate.artifacts.template_text import Log, Watched

Message = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """One conversation.

    Attributes:
        spans: the content of each message, in order, as it should stand in the prompt.
        systems: how many of them, at the beginning, are system messages.
        carrier: `user` where a literal of the template was put into a user's or a tool's text, `system` where into the
            system message, "" for neither.
        parts: whether contents are lists of parts, which not every template knows.
    """

    messages: list[Message]
    spans: tuple[str, ...]
    systems: int = 0
    tools: list[dict[str, Any]] | None = None
    carrier: str = ""
    literal: str = ""
    parts: bool = False
    log: Log = field(default_factory=list)


_NONSENSE = ("kolmari", "vendrik", "osprune", "tallowit", "gembrix", "harnquil", "zebulant", "morwick")
TOOL = {
    "type": "function",
    "function": {
        "name": "plimwarden",
        "description": "Quandary of frobnication.",
        "parameters": {
            "type": "object",
            "properties": {"dweomer": {"type": "string", "description": "The gribble."}},
            "required": ["dweomer"],
        },
    },
}


def _text(number: int) -> str:
    # No spaces at the ends: templates may strip those.
    return f"{_NONSENSE[number % len(_NONSENSE)]}x{number} brontide and the skerrick."


def conversation(turns: int, system: bool = False, parts: bool = False) -> Probe:
    """`turns` messages, user and assistant in turn, after a system message if there is to be one."""
    log: Log = []
    roles = ["system"] * system + ["user" if number % 2 == 0 else "assistant" for number in range(turns)]
    spans = tuple(_text(number) for number in range(len(roles)))
    messages = [_message(role, text, log, parts) for role, text in zip(roles, spans, strict=True)]
    return Probe(messages, spans, int(system), parts=parts, log=log)


def _message(role: str, text: str, log: Log, parts: bool = False) -> Message:
    watched = Watched(text, "content", log)
    return {"role": role, "content": [{"type": "text", "text": watched}] if parts else watched}


def with_tools() -> list[Probe]:
    """A chat with tools on offer, and one in which a tool has been called."""
    offered = conversation(1)
    log: Log = []
    call = {"type": "function", "id": "abcdefghi", "function": {"name": "plimwarden", "arguments": {"dweomer": "vell"}}}
    messages = [
        _message("user", _text(0), log),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        _message("tool", _text(2), log) | {"name": "plimwarden", "tool_call_id": "abcdefghi"},
    ]
    called = Probe(messages, (_text(0), _text(2)), 0, [TOOL], log=log)
    return [Probe(offered.messages, offered.spans, 0, [TOOL], log=offered.log), called]


def with_literal(literal: str, role: str, whole: bool = False) -> Probe:
    """A chat in which one message, the last of a user or the system's, holds a literal of the template."""
    log: Log = []
    text = literal if whole else f"{_text(1)} {literal} {_text(2)}"
    system = role == "system"
    messages = [_message("system", text, log)] * system + [_message("user", _text(3) if system else text, log)]
    spans = (text, _text(3)) if system else (text,)
    return Probe(messages, spans, int(system), carrier=role, literal=literal, log=log)


def of_length(characters: int) -> Probe:
    """A user's message of so many characters."""
    log: Log = []
    text = (_text(0) + " skerrick" * (characters // 9 + 1))[:characters].strip()
    text += "q" * (characters - len(text))
    return Probe([_message("user", text, log)], (text,), log=log)


def in_other_shapes() -> list[Probe]:
    """Messages as code, in capitals, in another script, of a single word."""
    texts = (
        "KOLMARI VENDRIK OSPRUNE",
        "def kolmari(x):\n    return x + 1",
        "Корморан везёт скерик",
        "kolmari?",
        "12345",
    )
    probes = []
    for text in texts:
        log: Log = []
        probes.append(Probe([_message("user", text, log)], (text,), log=log))
    return probes
