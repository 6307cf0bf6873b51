"""A run directory whose stages with a model are worked out in a container, as many of them in one as can be.

The rest of the gate does not know: it asks for a stage and finds it finished. What such a stage would do by itself,
load the model here, never happens.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from beear_gate import __version__
from beear_gate.errors import GateError, IncompleteError
from beear_gate.evaluation.model_judge import ledger_name
from beear_gate.judge_models import model_judges
from beear_gate.manifest import manifest_digest
from beear_gate.records import Conversion, ModelSnapshot, Remediation, SandboxRecord, Tick
from beear_gate.request import Request
from beear_gate.rundir import RunDirectory, T
from beear_gate.sandbox.engine import Engine, Mount
from beear_gate.sandbox.folders import hand_over, job_mount, model_mounts
from beear_gate.sandbox.handback import CHOICES, RESULTS, keep, take
from beear_gate.sandbox.job import JOB, MODELS, RUN, Goal, Job

WORKER = "beear_gate.sandboxed"


class SandboxedRun(RunDirectory):
    """As `RunDirectory`, for a request with a sandbox.

    Raises:
        GateError: see `Engine`.
    """

    def __init__(self, request: Request, run: RunDirectory, tick: Tick) -> None:
        super().__init__(run.path)
        assert request.sandbox is not None
        self.request, self.tick = request, tick
        self.engine = Engine(request.sandbox, request.device)
        self._snapshots: list[ModelSnapshot] = []
        self._key: Mapping[str, str] = {}

    @property
    def record(self) -> SandboxRecord:
        return self.engine.record

    def stage(self, name: str, inputs: Mapping[str, str], kind: Any, work: Callable[[], T]) -> T:
        """As `RunDirectory.stage`, but `work` is not called where it would need a model.

        Raises:
            GateError: see `Engine.run` and `handback.take`; or the container did not come to this stage.
        """
        if name not in RESULTS:
            result = super().stage(name, inputs, kind, work)
        else:
            self._key = inputs if name == "before" else self._key
            if self.finished(name, inputs, kind) is None:
                self._reach(name)
            result = super().stage(name, inputs, kind, lambda: _missing(name))
        snapshot = result.snapshot if isinstance(result, (Remediation, Conversion)) else result
        if isinstance(snapshot, ModelSnapshot) and snapshot not in self._snapshots:
            # Judges are pulled before the model under test, which is first all the same; then its converted copy is.
            place = 0 if name in ("pull", "convert") else len(self._snapshots)
            self._snapshots.insert(place, snapshot)
        return result

    def _reach(self, name: str) -> None:
        """Run a container until this stage is finished, or as far as is known to be needed."""
        goal: Goal = "repair"
        if name == "before":
            change, when = self.request.change, self.request.policy.remediation.when
            certain = change == "always" or (change == "policy" and when == "always")
            goal = "repair" if certain else "before"
        elif name.startswith("revealed"):
            goal = "reveal"
        inside = [replace(each, path=Path(MODELS, str(n))) for n, each in enumerate(self._snapshots)]
        source = self._snapshots[0]
        with self.scratch() as folder:
            mounts = [job_mount(self._job(goal, inside[0]), folder)]
            scratch = folder / "run"
            self._seed(scratch, inside)
            hand_over(scratch, self.record)
            for number, each in enumerate(self._snapshots):
                mounts += model_mounts(each, f"{MODELS}/{number}", folder)
            size = sum(file.size for file in source.files)
            output = self.request.output or self.path / "model"
            back = (scratch, RunDirectory(self.path), source, output, self._ledgers())
            try:
                # A canary's copy, the remediated model, one of them twice while it is saved, and the figures.
                self.engine.run([WORKER, JOB], mounts, Mount(scratch, RUN), 3 * size + 2 * 10**9, self.tick)
            except BaseException:
                with suppress(GateError, OSError):  # what was finished is kept for --resume; the first error counts
                    keep(*back)
                raise
            take(*back)

    def _job(self, goal: Goal, snapshot: ModelSnapshot) -> Job:
        request = replace(
            self.request,
            device=self.record.device,  # the one GPU that it was given, if any, whatever its number is outside
            output=None,
            tracking_uri=None,  # it may hold a password
            sandbox=None,
            convert=False,
            keeps_rounds=False,
            reveal=self.request.reveal if goal == "reveal" else None,
        )
        return Job(__version__, goal, request, snapshot, self._key)

    def _seed(self, scratch: Path, inside: list[ModelSnapshot]) -> None:
        """What is finished already goes along, with every model at its place inside."""
        places = {str(own.path): str(there.path) for own, there in zip(self._snapshots, inside, strict=True)}
        for file in sorted(self.path.glob("*.json")):
            if file.stem not in RESULTS and not file.stem.startswith("pull-"):
                continue
            with suppress(OSError, ValueError, KeyError, TypeError):  # a file that is no result is none inside either
                document = json.loads(file.read_text(encoding="utf-8"))
                result = document["result"]
                snapshot = result["snapshot"] if file.stem == "remediation" else result
                if file.stem == "remediation" or file.stem.startswith("pull-"):
                    snapshot["path"] = places[snapshot["path"]]
                (scratch / file.name).write_text(json.dumps(document), encoding="ascii")
        if (self.path / CHOICES).exists():
            shutil.copyfile(self.path / CHOICES, scratch / CHOICES)
        for name in self._ledgers():
            if (self.path / "judge" / name).exists():
                (scratch / "judge").mkdir(exist_ok=True)
                shutil.copyfile(self.path / "judge" / name, scratch / "judge" / name)

    def _ledgers(self) -> list[str]:
        """Files of the judges that a container may ask."""
        digests = [manifest_digest(each.files) for each in self._snapshots]
        return [ledger_name(spec, digest) for spec in model_judges(self.request.policy) for digest in digests]

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder in the run directory for one container; `run` in it is what the container may write."""
        with tempfile.TemporaryDirectory(prefix=".sandbox-", dir=self.path) as name:
            folder = Path(name).resolve()
            (folder / "run").mkdir()
            yield folder


def _missing(name: str) -> NoReturn:
    raise IncompleteError(
        f"The sandbox handed back no result of the stage {name} for these inputs.",
        "Build the image again from this version of beear-gate, and go on with --resume RUN_DIR.",
    )
