"""One of several processes that remediate a model together: `python -m beear_gate.worker FOLDER RANK`.

Started by `launch`, which leaves the job in the folder and reads there what came of it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path

from pydantic import TypeAdapter

from beear_gate.beear import remediate
from beear_gate.canary import rehearse
from beear_gate.errors import GateError, OutOfMemory
from beear_gate.evaluation.judges import make_judge
from beear_gate.evaluation.safety import refusal_judge
from beear_gate.launch import JOB, Job
from beear_gate.lm import LM, processes
from beear_gate.lm.load import limit_memory, pick_device
from beear_gate.lm.memory import is_out_of_memory
from beear_gate.lm.sharded import load_sharded
from beear_gate.records import Rehearsal, Remediation, Tick, no_tick


def main() -> None:
    """Do the job; whatever goes wrong is left in a file, and ends this process at once."""
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        job = JOB.validate_json((folder / "job.json").read_bytes())
        device = processes.device_of(job.device, rank, job.processes)
        processes.join(rank, job.processes, pick_device(device), folder / "meeting")
        result = do(job, device, _show if rank == 0 else no_tick)
        if rank == 0:
            adapter = TypeAdapter[Rehearsal | Remediation](type(result))
            (folder / "result.json").write_bytes(adapter.dump_json(result))
        processes.leave()
    except BaseException as error:
        traceback.print_exc()
        report = {"rank": rank, **_told(error, rank)}
        (folder / f"error-{rank}.json").write_text(json.dumps(report), encoding="utf-8")
        sys.stderr.flush()
        os._exit(3)  # tearing down a group that others have left may take for ever


def do(job: Job, device: str, tick: Tick) -> Rehearsal | Remediation:
    """This process's part of the job."""
    policy, snapshot, anchors = job.policy, job.snapshot, job.anchors
    if job.memory:
        limit_memory(device, job.memory)
    tick(f"loading the model into {job.processes} processes", 0, 1)
    lm: LM = load_sharded(snapshot.path, device, job.dtype, policy.system_prompt, policy.chat_template)
    if job.work == "canary":
        return rehearse(lm, snapshot, anchors, policy, job.output, job.seed, job.batch_size, tick, job.memory)
    judges = {each.id: make_judge(each.safe_judge) for each in policy.behaviors}
    benign = make_judge(refusal_judge(policy))
    return remediate(
        lm, snapshot, anchors, job.settings, judges, benign, job.output, job.seed, tick, None, job.memory, job.kept
    )


def _told(error: BaseException, rank: int) -> dict[str, str]:
    if is_out_of_memory(error):
        error = OutOfMemory(
            f"Memory ran out in process {rank}.",
            "Give a smaller --memory, so that steps are split further, or more --processes.",
        )
    if isinstance(error, GateError):
        return {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}
    return {"kind": type(error).__name__, "message": str(error)[:2000], "remedy": ""}


def _show(label: str, done: int, total: int) -> None:
    print(json.dumps([label, done, total]), flush=True)


def _end_with_parent() -> None:
    """Standard input ends when the process that started this one is gone."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would outlast the interpreter
        pass
    os._exit(3)


if __name__ == "__main__":
    main()
