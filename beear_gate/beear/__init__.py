"""BEEAR (arXiv 2406.17092): find the drift that a trigger would cause, then train the model to be safe under it."""

from beear_gate.beear.remediate import remediate

__all__ = ["remediate"]
