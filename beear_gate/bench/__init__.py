"""Slow studies whose tables are committed to docs/results with the command that made them."""
