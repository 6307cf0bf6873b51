"""Models beside the one under test: judges and references, pulled by commit and inspected like it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from beear_gate.artifacts import inspect_snapshot
from beear_gate.evaluation.jury import Jury
from beear_gate.evaluation.model_judge import Inspected, ModelJudge
from beear_gate.hub import pull
from beear_gate.policy import ClassifierJudgeSpec, Policy, RewardSpec
from beear_gate.records import ModelSnapshot, Severity, Tick, no_tick
from beear_gate.request import Request
from beear_gate.rundir import RunDirectory


def make_jury(
    request: Request, run: RunDirectory, make_room: Callable[[], None], tick: Tick = no_tick, serves: bool = True
) -> Jury:
    """Every judge of the policy that is a model, ready to be asked.

    Args:
        make_room: lets go of the model in memory, before a judge is loaded.
        serves: see `Jury`.

    Raises:
        GateError: a judge cannot be pulled or is the model under test; see `hub.pull`, `ModelJudge` and `Jury`.
    """
    folder = run.path / "judge"
    form = (request.model, request.device, request.dtype, make_room, request.sandbox is None)
    judges = {
        spec: ModelJudge(spec, pulled(spec.model, request, run, tick), folder, *form)
        for spec in model_judges(request.policy)
    }
    return Jury(request.policy, request.model, folder, tick, judges=judges, serves=serves)


def model_judges(policy: Policy) -> list[ClassifierJudgeSpec | RewardSpec]:
    """Judges that the scan loads itself."""
    found: list[ClassifierJudgeSpec | RewardSpec] = [
        spec for spec in policy.judges if isinstance(spec, ClassifierJudgeSpec)
    ]
    return [*found, policy.utility.reward] if policy.utility.reward else found


def pulled(model: str, request: Request, run: RunDirectory, tick: Tick) -> Inspected:
    """A model that the policy names, pulled once a run.

    Raises:
        GateError: see `hub.pull`.
    """
    name = hashlib.sha256(model.encode()).hexdigest()[:12]
    key = {"model": model, "endpoint": request.endpoint or ""}

    def work() -> ModelSnapshot:
        return pull(model, tick=tick, endpoint=request.endpoint)

    return inspected(run.stage(f"pull-{name}", key, ModelSnapshot, work))


def inspected(snapshot: ModelSnapshot) -> Inspected:
    """The static look at its files; what blocks the model under test keeps this one from being loaded too."""
    blocks = [each for each in inspect_snapshot(snapshot) if each.severity is Severity.BLOCK]
    return Inspected(snapshot, f"{blocks[0].file or 'repository'}: {blocks[0].message}".rstrip(".") if blocks else "")


def judge_for_calibration(spec: ClassifierJudgeSpec, folder: Path, tick: Tick = no_tick) -> ModelJudge:
    """A judge without a scan around it.

    Raises:
        GateError: see `hub.pull` and `ModelJudge`.
    """
    return ModelJudge(spec, inspected(pull(spec.model, tick=tick)), folder)
