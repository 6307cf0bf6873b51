"""The part of a scan that several processes do together: start them, hand over the job, watch, take the result back.

They are on this machine and meet in a file; what they send one another stays on its loopback interface. They end when
one of them does, or when the scan does.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import TypeAdapter

from beear_gate import errors
from beear_gate.errors import GateError, IncompleteError
from beear_gate.policy import Policy
from beear_gate.records import AnchorSets, ModelSnapshot, RemediationSettings, Tick

T = TypeVar("T")

PACKAGE = Path(__file__).parent
LOOPBACK = "lo"
GRACE = 2.0
"""Seconds after the first process ended in which others may: one that lost a partner often notices as fast as we do."""


@dataclass(frozen=True)
class Job:
    """What several processes are to do: all that one process would do it with.

    Attributes:
        work: the remediation, or its rehearsal on a copy with a canary.
        settings: of the remediation.
        output: folder for the weights.
        kept: folder for the state after each round; None for none, as in a rehearsal or a sandbox.
        device, dtype, seed, batch_size, memory: as in a `Request`.
    """

    work: Literal["remediation", "canary"]
    processes: int
    policy: Policy
    snapshot: ModelSnapshot
    anchors: AnchorSets
    settings: RemediationSettings
    output: Path
    kept: Path | None
    device: str
    dtype: str
    seed: int
    batch_size: int
    memory: int | None


JOB: TypeAdapter[Job] = TypeAdapter(Job)


def run_together(job: Job, folder: Path, kind: type[T], tick: Tick) -> T:
    """Have the job done by `job.processes` processes.

    Args:
        folder: for what they are handed and leave; made anew, and gone if all goes well.
        kind: of the result, for pydantic.

    Raises:
        GateError: what one of them raised.
        IncompleteError: one of them died.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(JOB.dump_json(job))
    started: list[subprocess.Popen[str]] = []
    try:
        for rank in range(job.processes):
            started.append(_start(folder, rank, job.processes))
        _watch(started, job, folder, tick)
    finally:
        for each in started:
            each.kill()
            each.wait()
            assert each.stdin is not None
            each.stdin.close()
    result = TypeAdapter(kind).validate_json((folder / "result.json").read_bytes())
    shutil.rmtree(folder, ignore_errors=True)  # the logs of what went well say nothing
    return result


def _start(folder: Path, rank: int, number: int) -> subprocess.Popen[str]:
    # Those that this process may use are shared: more threads than cores wait for one another.
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list is for parallel regions inside others
    threads = str(max(1, (int(given) if given.isdecimal() else os.cpu_count() or 1) // number))
    # The package that runs here, wherever it was found.
    paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    settings = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": "0", "PYTHONPATH": paths}
    if Path("/sys/class/net", LOOPBACK).exists():
        settings |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    with (folder / f"process-{rank}.log").open("wb") as log:
        return subprocess.Popen(
            # -P: no module is taken from the folder that the scan happens to run in.
            [sys.executable, "-P", "-m", "beear_gate.worker", str(folder), str(rank)],
            env=settings,
            stdin=subprocess.PIPE,  # open as long as this process lives
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the scan, which ends them
        )


def _watch(started: Sequence[subprocess.Popen[str]], job: Job, folder: Path, tick: Tick) -> None:
    """Show the progress of the first process until all have ended well. Raises: as `run_together`."""
    lines: queue.Queue[str] = queue.Queue()
    assert started[0].stdout is not None
    threading.Thread(target=_pass_on, args=(started[0].stdout, lines), daemon=True).start()
    while None in (ends := [each.poll() for each in started]):  # all are asked: the first may wait for a dead one
        if any(ends):
            break
        try:
            label, done, total = json.loads(lines.get(timeout=0.2))
            tick(str(label), int(done), int(total))
        except (queue.Empty, ValueError, TypeError):  # a library may print too
            continue
    if any(each.poll() for each in started):
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(each.poll() is None for each in started):
            time.sleep(0.05)
        raise cause(started, folder, job.kept is not None)


def _pass_on(stream: IO[str], lines: queue.Queue[str]) -> None:
    with stream:
        for line in stream:
            lines.put(line)


def cause(started: Sequence[subprocess.Popen[str]], folder: Path, kept: bool) -> GateError:
    """The cause, and not what followed from it: an error raised on purpose, else a death, else the first error.

    Args:
        kept: whether rounds were, so that the next try need not begin with the first.
    """
    said = sorted(folder.glob("error-*.json"), key=lambda file: file.stat().st_mtime_ns)
    reports: list[dict[str, Any]] = [json.loads(file.read_text(encoding="utf-8")) for file in said]
    for report in reports:
        kind = getattr(errors, report["kind"], None)
        if isinstance(kind, type) and issubclass(kind, GateError):
            return kind(report["message"], report["remedy"])
    number = len(started)
    go_on = "Go on with --resume RUN_DIR, "
    go_on += "from the last round that was finished." if kept else "which begins it again."
    for rank, each in enumerate(started):
        if (each.returncode or 0) < 0:
            name = signal.Signals(-each.returncode).name
            name += ", as the system does when memory runs out" if name == "SIGKILL" else ""
            return IncompleteError(
                f"Process {rank} of the {number} that train the model was killed ({name}); the others were ended.",
                go_on,
            )
    rank = next((rank for rank, each in enumerate(started) if each.returncode), 0)
    what = f"{reports[0]['kind']}: {reports[0]['message']}" if reports else f"exit code {started[rank].returncode}"
    log = f"{folder.name}/process-{reports[0]['rank'] if reports else rank}.log"
    return IncompleteError(
        f"One of the {number} processes that train the model ended ({what[:300].rstrip('.')}); see {log} in the run "
        "directory.",
        go_on,
    )
