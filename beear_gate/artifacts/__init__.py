"""Static checks of a model's files; imports neither torch nor transformers, and loads no pickle."""

from beear_gate.artifacts.inspect import inspect_snapshot
from beear_gate.artifacts.rules import RULES
from beear_gate.artifacts.waivers import apply_waivers

__all__ = ["RULES", "apply_waivers", "inspect_snapshot"]
