"""The judges of a scan that are models. They read answers when a stage has given them, so that none depends on them.

Their verdicts are no stage's result: they lie in a folder of the run, and a scan that goes on takes them from there
and asks only for those that are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from beear_gate.evaluation.chat import Pace
from beear_gate.evaluation.classifier_forms import outcome_of
from beear_gate.evaluation.http_judge import HttpJudge, Question
from beear_gate.evaluation.judges import is_incoherent
from beear_gate.evaluation.model_judge import ModelJudge, ModelJudgeSpec
from beear_gate.evaluation.reward import measure_reward, question_of, rewarded
from beear_gate.policy import ClassifierJudgeSpec, HttpJudgeSpec, Policy
from beear_gate.records import (
    Answer,
    Finding,
    Measurement,
    ModelSnapshot,
    Observations,
    Outcome,
    Quality,
    Rehearsal,
    ServedJudge,
    Tick,
    no_tick,
)


class Jury:
    """Every judge of a policy that is a model: served ones, and those that the scan loads itself.

    Args:
        under_test: the model that is judged, as the user named it.
        folder: where verdicts are kept.
        judges: those that the scan loads.
        serves: whether served judges are asked; in a sandbox, which has no network, they are left to the host.

    Raises:
        UsageError: see `HttpJudge`.
    """

    def __init__(
        self,
        policy: Policy,
        under_test: str,
        folder: Path,
        tick: Tick = no_tick,
        pace: Pace | None = None,
        judges: Mapping[ModelJudgeSpec, ModelJudge] | None = None,
        serves: bool = True,
    ) -> None:
        self.policy, self.tick = policy, tick
        served = [spec for spec in policy.judges if isinstance(spec, HttpJudgeSpec)]
        served += [policy.utility.quality] if policy.utility.quality else []
        self._served = {spec: HttpJudge(spec, folder, under_test, pace) for spec in served if serves}
        self._loaded = dict(judges or {})

    def refuse(self, under_test: ModelSnapshot) -> None:
        """Make sure that no judge is the model under test.

        Raises:
            UsageError: one is.
        """
        for judge in self._loaded.values():
            judge.refuse(under_test)

    def graded(self, answers: Sequence[Answer]) -> tuple[Answer, ...]:
        """The answers, with what each such judge of their behaviour says of them.

        A judge sees the prompt as the policy has it, without a trigger: what is judged is what comes of the request.

        Raises:
            GateError: see `HttpJudge.grade`.
        """
        found = list(answers)
        specs: list[HttpJudgeSpec | ClassifierJudgeSpec] = list(self._served)
        specs += [spec for spec in self._loaded if isinstance(spec, ClassifierJudgeSpec)]
        for spec in specs:
            behaviors = {each.id for each in self.policy.behaviors if spec in each.judges}
            places = [place for place, answer in enumerate(found) if answer.behavior in behaviors]
            outcomes = self._outcomes(spec, [question_of(found[place]) for place in places])
            for place, outcome in zip(places, outcomes, strict=True):
                answer = found[place]
                found[place] = replace(answer, outcomes={**answer.outcomes, spec.name: outcome})
        return tuple(found)

    def _outcomes(self, spec: HttpJudgeSpec | ClassifierJudgeSpec, questions: Sequence[Question]) -> list[Outcome]:
        if isinstance(spec, HttpJudgeSpec):
            return self._served[spec].grade(questions, self.tick)
        grades = self._loaded[spec].grades(questions, self.tick)
        return [outcome_of(grade, is_incoherent(each.answer)) for each, grade in zip(questions, grades, strict=True)]

    def rewards(self, before: Observations, after: Observations) -> tuple[Measurement, ...]:
        """What the policy's reward model makes of the change; nothing where it names none."""
        spec = self.policy.utility.reward
        if spec is None:
            return ()
        answers = rewarded(self.policy, spec, (*before.answers, *after.answers))
        questions = list(dict.fromkeys(map(question_of, answers)))
        grades = self._loaded[spec].grades(questions, self.tick)
        scores = {each.key: float(grade) if grade else None for each, grade in zip(questions, grades, strict=True)}
        return measure_reward(self.policy, spec, before.answers, after.answers, scores)

    def seen(self, observed: Observations) -> Observations:
        """As `graded`, for one stage, and the quality of its benign answers."""
        return replace(observed, answers=self.graded(observed.answers), quality=self._quality(observed.answers))

    def _quality(self, answers: Sequence[Answer]) -> tuple[Quality, ...]:
        """A grade for each answer to a utility prompt, where the policy names a judge of quality."""
        spec = self.policy.utility.quality
        if spec is None or spec not in self._served:
            return ()
        benign = [answer for answer in answers if answer.behavior == "utility"]
        grades = self._served[spec].grades([question_of(each) for each in benign], self.tick)
        return tuple(
            Quality(answer.prompt, answer.cluster, int(grade) if grade else None)
            for answer, grade in zip(benign, grades, strict=True)
        )

    def rehearsed(self, rehearsal: Rehearsal) -> Rehearsal:
        """As `graded`, for the answers of the copy with a canary."""
        found = self.graded((*rehearsal.before, *rehearsal.after))  # at once, so that a judge is loaded once
        middle = len(rehearsal.before)
        return replace(rehearsal, before=found[:middle], after=found[middle:])

    def findings(self) -> tuple[Finding, ...]:
        """One for each judge that left answers unscored."""
        return tuple(finding for judge in self._judges() if (finding := judge.finding()))

    def records(self) -> tuple[ServedJudge, ...]:
        return tuple(judge.record() for judge in self._judges())

    def _judges(self) -> tuple[HttpJudge | ModelJudge, ...]:
        return (*self._served.values(), *self._loaded.values())

    def contents(self) -> dict[str, str]:
        """Digest of the files of each judge that the scan loads, by its name."""
        return {judge.spec.name: judge.model.digest for judge in self._loaded.values()}
