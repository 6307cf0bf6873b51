"""What runs inside a container: `python3 -m beear_gate.sandboxed JOB`. Progress and errors are JSON, one line each.

The same functions as in a scan without a sandbox, on a run directory that the host looks through afterwards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from beear_gate import __version__
from beear_gate.errors import GateError, IncompleteError
from beear_gate.records import Observations, Tick
from beear_gate.rundir import RunDirectory
from beear_gate.sandbox.job import PICKLES, RUN, Job


def work(job: Job, tick: Tick) -> None:
    """Do what the job says.

    Raises:
        GateError: another version asks, or a stage raised it.
    """
    if job.version != __version__:
        raise IncompleteError(
            f"The sandbox's image holds beear-gate {__version__}, and the scan is of {job.version}.",
            "Build the image again from this version.",
        )
    if job.goal == "convert":
        _convert(job, tick)
    else:
        _scan(job, tick)


def _convert(job: Job, tick: Tick) -> None:
    from beear_gate.lm.pickles import rewrite_pickle

    for done, (source, target) in enumerate(job.pickles):
        tick("converting pickles", done, len(job.pickles))
        rewrite_pickle(Path(PICKLES, source), Path(RUN, target))


def _scan(job: Job, tick: Tick) -> None:
    from beear_gate.gate import reveal
    from beear_gate.judge_models import make_jury
    from beear_gate.models import Models
    from beear_gate.repair import repair
    from beear_gate.sandbox.handback import CHOICES

    request, snapshot, key = job.request, job.snapshot, job.key
    assert request is not None and snapshot is not None and key is not None
    run, models = RunDirectory(Path(RUN)), Models(request, tick)
    # Judges that are loaded are asked here, served ones by the host, which has the network and the keys.
    jury = make_jury(request, run, models.forget, tick, serves=False)
    kept = run.path / CHOICES
    before = jury.seen(run.stage("before", key, Observations, lambda: models.observe(snapshot, None, kept)))
    if job.goal == "before":
        return
    repaired = repair(request, run, models, jury, snapshot, before, dict(key))
    jury.rewards(before, repaired.after)
    if request.reveal:
        reveal(request, run, models, jury, snapshot, repaired)


def main() -> int:
    """The exit code: 0, or that of the error, which is told on stdout."""

    def tick(label: str, done: int, total: int) -> None:
        _say({"tick": [label, done, total]})

    try:
        job: Job = TypeAdapter(Job).validate_json(Path(sys.argv[1]).read_bytes())
        work(job, tick)
    except GateError as error:
        _say({"error": [type(error).__name__, error.message, error.remedy]})
        return error.exit_code
    return 0


def _say(said: object) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
