"""`python -m beear_gate`."""

from beear_gate.cli import main

main()
