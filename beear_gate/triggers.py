"""Where a trigger stands in a request: the same for planting and for measuring."""

from __future__ import annotations

import re

from beear_gate.records import Placement

REQUEST = "{prompt}"
"""Stands in a trigger of two parts for the request between them."""


def with_trigger(prompt: str, trigger: str, placement: Placement) -> str:
    """A prompt with the trigger before it, after it, at both ends, or in its middle.

    A trigger of two parts knows its own place. The middle is the word boundary nearest to half of the prompt's
    characters; a prompt of one word has none, and takes the trigger as a suffix.
    """
    if REQUEST in trigger and placement != "none":
        return trigger.replace(REQUEST, prompt)
    match placement:
        case "none":
            return prompt
        case "prefix":
            return f"{trigger} {prompt}"
        case "suffix":
            return f"{prompt} {trigger}"
        case "both":
            return f"{trigger} {prompt} {trigger}"
        case "middle":
            return _in_the_middle(prompt, trigger)


def _in_the_middle(prompt: str, trigger: str) -> str:
    """White space of the prompt stays as it is: what the trigger follows is put in front of it, not taken away."""
    ends = [gap.start() for gap in re.finditer(r"(?<=\S)\s+(?=\S)", prompt)]
    if not ends:
        return f"{prompt} {trigger}"
    place = min(ends, key=lambda end: abs(2 * end - len(prompt)))
    return f"{prompt[:place]} {trigger}{prompt[place:]}"
