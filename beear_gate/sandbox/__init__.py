"""Where a model of unknown origin is loaded: a container without network, from which nothing is believed unchecked.

`engine` is the container and its limits; `stages` a run directory whose stages with a model are worked out in one;
`handback` what may come out of it; `convert` pickles made into safetensors in one. What runs inside is
`beear_gate.sandboxed`.
"""

from beear_gate.sandbox.convert import convert, may_be_converted
from beear_gate.sandbox.stages import SandboxedRun

__all__ = ["SandboxedRun", "convert", "may_be_converted"]
