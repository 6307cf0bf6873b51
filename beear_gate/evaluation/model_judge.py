"""A judge that is a model on disk: what it says is kept like the verdicts of a served judge, and never asked for twice.

Whatever goes wrong with one answer leaves that answer unscored. A model that may not or cannot be loaded leaves all of
them so, and the scan goes on: its findings say why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beear_gate.errors import IncompleteError, UsageError
from beear_gate.evaluation.classifier_forms import form_digest
from beear_gate.evaluation.http_judge import CHANGED, Question, same_model
from beear_gate.evaluation.ledger import Entry, Ledger
from beear_gate.evaluation.model_readings import readings
from beear_gate.lm.load import pick_device
from beear_gate.manifest import manifest_digest, verify_unchanged
from beear_gate.policy import ClassifierJudgeSpec, RewardSpec
from beear_gate.records import Finding, ModelSnapshot, ServedJudge, Severity, Tick, no_tick

ModelJudgeSpec = ClassifierJudgeSpec | RewardSpec


@dataclass(frozen=True)
class Inspected:
    """A pulled model beside the one under test, and why it may not be loaded; "" where it may."""

    snapshot: ModelSnapshot
    blocked: str

    @property
    def digest(self) -> str:
        return manifest_digest(self.snapshot.files)


def no_room() -> None:
    """Where no other model is in memory."""


class ModelJudge:
    """One such judge for the length of a run.

    Args:
        folder: where its verdicts are kept; those that are there are not asked for again.
        under_test: the model that is judged, as the user named it; "" where there is none.
        device, dtype: the scan's; the spec's own device goes before it.
        make_room: called before the judge is loaded, because two models may not fit.
        loads: whether it is loaded here; else it is asked in a sandbox, and only what that left in `folder` counts.

    Raises:
        UsageError: the judge is the model under test, or its device does not exist.
    """

    def __init__(
        self,
        spec: ModelJudgeSpec,
        model: Inspected,
        folder: Path,
        under_test: str = "",
        device: str = "auto",
        dtype: str = "auto",
        make_room: Callable[[], None] = no_room,
        loads: bool = True,
    ) -> None:
        self.spec, self.model, self.dtype, self.make_room, self.loads = spec, model, dtype, make_room, loads
        self.device = spec.device or device
        pick_device(self.device)
        if same_model(spec.model, under_test):
            raise self._under_test()
        self.rules = form_digest(spec)
        self.ledger = Ledger(folder / ledger_name(spec, model.digest))
        blocked = f"was not loaded, because its files are unsafe: {model.blocked}" if model.blocked else ""
        self.closed = self._found("judge-unsafe", blocked, "Name another model.") if blocked else None
        self._unscored: dict[str, str] = {}

    def refuse(self, under_test: ModelSnapshot) -> None:
        """Make sure that no model judges itself, under whatever name.

        Raises:
            UsageError: the weights are those of the model under test.
        """
        if same_weights(self.model.snapshot, under_test):
            raise self._under_test()

    def grades(self, questions: Sequence[Question], tick: Tick = no_tick) -> list[str | None]:
        """What the model says of each answer, as `Reading.grade`; None where it says nothing of use.

        Raises:
            OSError: verdicts cannot be written to disk.
        """
        if not self.loads:
            self.ledger = Ledger(self.ledger.path)  # it may have grown since
        fresh = [each for each in dict.fromkeys(questions) if self.ledger.grade(each.key) is None]
        if fresh and self.loads and not self.closed:
            self._read(fresh, tick)
        found = [self.ledger.grade(each.key) for each in questions]
        problems = {each.key: each.problem for each in self.ledger.entries if each.problem}
        for each, grade in zip(questions, found, strict=True):
            if grade is None:
                self._unscored.setdefault(each.key, problems.get(each.key, "not asked"))
        return found

    def finding(self) -> Finding | None:
        """Why answers of this run have no score; None where all have one."""
        if not self._unscored or self.closed:
            return self.closed
        reasons = Counter(self._unscored.values()).most_common(3)
        said = "; ".join(f"{times} times {reason}" for reason, times in reasons)
        message = f"left {len(self._unscored)} answers without a score: {said}"
        return self._found("judge-unscored", message, "Look whether the style fits the model, or name another judge.")

    def record(self) -> ServedJudge:
        """What the judge was, and what it read in all, resumed runs included."""
        entries = self.ledger.entries
        return ServedJudge(
            judge=self.spec.name,
            url="",
            model=self.spec.model,
            served=self.model.snapshot.commit,
            fingerprint=self.model.digest,
            rubric=self.rules,
            requests=len(entries),
            graded=len(self.ledger),
            unscored=len(self._unscored),
            prompt_tokens=sum(entry.prompt_tokens for entry in entries),
            completion_tokens=sum(entry.completion_tokens for entry in entries),
            cost=None,
            currency="",
        )

    def _read(self, questions: Sequence[Question], tick: Tick) -> None:
        if changed := verify_unchanged(self.model.snapshot):
            message = f"changed after it was inspected ({changed[0]} in {self.model.snapshot.path}) and was not loaded"
            remedy = "Pin one version of the judge, and scan again without --resume."
            self.closed = self._found(CHANGED, message, remedy)
            return
        self.make_room()
        label, identity = f"judging: {self.spec.name}", (self.model.digest, "")
        tick(label, 0, len(questions))
        try:
            found = readings(self.spec, self.model.snapshot.path, self.device, self.dtype, questions)
            for done, each in enumerate(found, 1):
                key, problem = each.question.key, each.problem
                self.ledger.add(Entry(key, each.grade, problem, identity, 1, each.read, each.written, each.reply))
                if problem:
                    self._unscored[key] = problem
                tick(label, done, len(questions))
        except IncompleteError as error:
            message = f"gave no verdict: {error.message.rstrip('.')}"
            self.closed = self._found("judge-unavailable", message, error.remedy)

    def _found(self, id: str, message: str, remedy: str) -> Finding:
        return Finding(id, Severity.WARNING, "", f"The judge {self.spec.name} {message}.", remedy)

    def _under_test(self) -> UsageError:
        return UsageError(
            f"The judge {self.spec.name} is the model under test, and no model may judge itself.",
            "Name another judge in the policy.",
        )


def ledger_name(spec: ModelJudgeSpec, digest: str) -> str:
    """The file of a judge's verdicts: what it is asked, and the digest of its files."""
    return f"{form_digest(spec)[:8]}-{digest[:16]}.jsonl"


def same_weights(one: ModelSnapshot, other: ModelSnapshot) -> bool:
    """Whether two folders hold the same weights, whatever else they hold."""
    own, others = (
        {file.sha256 for file in snapshot.files if file.path.endswith(".safetensors")} for snapshot in (one, other)
    )
    return bool(own) and own == others
