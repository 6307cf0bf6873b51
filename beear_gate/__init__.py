"""beear-gate: the security gate that a model passes before release (BEEAR, arXiv 2406.17092)."""

__version__ = "0.1.0"
