"""A process of its own for chat templates: sources on stdin, their problems on stdout; see `limited`."""

from __future__ import annotations

import json
import sys

from beear_gate.artifacts.limited import limited_input
from beear_gate.artifacts.template_render import template_problems
from beear_gate.artifacts.template_static import Problem


def _problems(source: str) -> list[Problem]:
    try:
        return template_problems(source)
    except (MemoryError, RecursionError) as error:
        return [("template-limit", f"needs too much memory or depth ({type(error).__name__})")]


if __name__ == "__main__":
    json.dump(_problems(limited_input()), sys.stdout)
