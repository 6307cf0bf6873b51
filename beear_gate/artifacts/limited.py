"""Hostile input is read in a process of its own, with limits of time and memory: a crash there is an answer here."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import beear_gate


class LimitExceeded(Exception):
    """The process took too long, too much memory, or died; the text says which, as the end of a sentence."""


def run_limited(module: str, payload: object, seconds: int = 20, megabytes: int = 1024) -> Any:
    """What `beear_gate.artifacts.<module>` writes as JSON to stdout, given `payload` as JSON on stdin.

    Args:
        seconds: of CPU time; three times as much by the clock, because the machine may be busy.
        megabytes: of address space.

    Raises:
        LimitExceeded: no answer came of it.
    """
    # -P: the current folder, which may be a model's, is not on the path of imports.
    command = [sys.executable, "-P", "-m", f"beear_gate.artifacts.{module}"]
    package = str(Path(beear_gate.__file__).parent.parent)
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    environment = {"PYTHONPATH": paths, "PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"}
    limits = json.dumps([seconds, megabytes * 2**20])
    try:
        done = subprocess.run(
            [*command, limits],
            input=json.dumps(payload).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=3 * seconds,
            env=environment | {"OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LimitExceeded(f"took more than {3 * seconds} seconds") from None
    if done.returncode:
        raise LimitExceeded(f"needed more than {seconds} seconds of CPU time or {megabytes} MB of memory, or crashed")
    return json.loads(done.stdout)


def limited_input() -> Any:
    """In such a process: take the limits from the command line, then the payload from stdin."""
    seconds, memory = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return json.load(sys.stdin)
