"""What a scan was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from beear_gate.errors import UsageError
from beear_gate.policy import JudgeSpec, Policy
from beear_gate.records import Placement

MAX_PULL_GB = 200.0
"""Gigabytes (10^9 bytes) that a model on a hub may have, unless somebody says otherwise: 70 billion bfloat16 weights
have 140."""
Change = Literal["policy", "always", "skip", "off"]


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_memory(text: str) -> int:
    """Bytes of an amount such as 24GiB, 80GB or 900MiB.

    Raises:
        UsageError: no amount, an unknown unit, or nothing at all.
    """
    found = _AMOUNT.fullmatch(text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not int(float(found[1]) * unit):
        raise UsageError(f"{text[:40]!r} is no amount of memory.", "Write a number with GiB, MiB or GB, such as 24GiB.")
    return int(float(found[1]) * unit)


@dataclass(frozen=True)
class Reveal:
    """Ground truth of a demo or bench, measured after the decision: the trigger, and a judge that knows the harm."""

    trigger: str
    placement: Placement
    judge: JudgeSpec


@dataclass(frozen=True)
class Sandbox:
    """The container that a scan runs the model in; `sandbox.engine` says what else it may not do.

    Attributes:
        image: of beear-gate, by a name that the engine knows; it is never pulled.
        memory_gb: gigabytes (10^9 bytes), swap included; None for nine tenths of what the engine has.
        cpus: None for all.
        pids: most processes and threads.
        minutes: of wall-clock time for each container.
    """

    image: str = "beear-gate"
    memory_gb: float | None = None
    cpus: float | None = None
    pids: int = 1024
    minutes: float = 720.0


@dataclass(frozen=True)
class Request:
    """One scan.

    Attributes:
        change: `policy` does what the policy says, `always` remediates whatever it says, `skip` leaves out a
            remediation that the policy asks for (no PASS then), `off` only evaluates.
        output: folder for the remediated model; None for `model` in the run directory.
        endpoint: address of the hub; None for the client's default.
        max_pull_gb: the most that is downloaded; a larger model is refused before the first byte.
        processes: how many train the model together, each with a part of the weights; on GPUs, one each.
        keeps_rounds: whether several processes keep what they have after each round, for a scan that goes on; a
            container does not, because it hands back finished stages alone.
        memory: the most bytes that weights and training may take on the device; None for all that is free.
        vllm: interpreter of an environment with vLLM, which answers the gate prompts; None for transformers.
        sandbox: where the model is loaded; None for the process of the scan.
        convert: whether weights that are there as pickles alone are made into safetensors, in the sandbox.
    """

    model: str
    policy: Policy
    revision: str | None = None
    change: Change = "policy"
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    batch_size: int = 64
    output: Path | None = None
    endpoint: str | None = None
    max_pull_gb: float = MAX_PULL_GB
    memory: int | None = None
    processes: int = 1
    keeps_rounds: bool = True
    vllm: str | None = None
    tracking_uri: str | None = None
    experiment: str = "beear-gate"
    reveal: Reveal | None = None
    sandbox: Sandbox | None = None
    convert: bool = False

    @property
    def engine(self) -> dict[str, str]:
        """Who answers the gate prompts, as inputs of the stages that depend on it."""
        return {"vllm": self.vllm} if self.vllm else {}
