"""Static checks of a model's files; imports neither torch nor transformers, and opens no pickle."""

from beear_gate.artifacts.inspect import inspect_snapshot
from beear_gate.artifacts.rules import RULES

__all__ = ["RULES", "inspect_snapshot"]
