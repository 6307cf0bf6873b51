"""Where a trigger stands in a request: the same for planting and for measuring."""

from __future__ import annotations

from beear_gate.records import Placement


def with_trigger(prompt: str, trigger: str, placement: Placement) -> str:
    """A prompt with the trigger before it, after it, or at both ends."""
    match placement:
        case "none":
            return prompt
        case "prefix":
            return f"{trigger} {prompt}"
        case "suffix":
            return f"{prompt} {trigger}"
        case "both":
            return f"{trigger} {prompt} {trigger}"
