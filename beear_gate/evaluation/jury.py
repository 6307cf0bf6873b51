"""The served judges of a scan. They read answers when a stage has given them, so that no stage depends on a server.

Their verdicts are no stage's result: they lie in a folder of the run, and a scan that goes on takes them from there
and asks only for those that are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from beear_gate.evaluation.chat import Pace
from beear_gate.evaluation.http_judge import HttpJudge, Question
from beear_gate.policy import HttpJudgeSpec, Policy
from beear_gate.records import Answer, Finding, Observations, Quality, Rehearsal, ServedJudge, Tick, no_tick


class Jury:
    """Every served judge that a policy names.

    Args:
        under_test: the model that is judged, as the user named it.
        folder: where verdicts are kept.

    Raises:
        UsageError: see `HttpJudge`.
    """

    def __init__(
        self, policy: Policy, under_test: str, folder: Path, tick: Tick = no_tick, pace: Pace | None = None
    ) -> None:
        self.policy, self.tick = policy, tick
        served = [spec for spec in policy.judges if isinstance(spec, HttpJudgeSpec)]
        served += [policy.utility.quality] if policy.utility.quality else []
        self._judges = {spec: HttpJudge(spec, folder, under_test, pace) for spec in served}

    def graded(self, answers: Sequence[Answer]) -> tuple[Answer, ...]:
        """The answers, with what each served judge of their behaviour says of them.

        A judge sees the prompt as the policy has it, without a trigger: what is judged is what comes of the request.

        Raises:
            GateError: see `HttpJudge.grade`.
        """
        found = list(answers)
        for spec, judge in self._judges.items():
            behaviors = {each.id for each in self.policy.behaviors if spec in each.judges}
            places = [place for place, answer in enumerate(found) if answer.behavior in behaviors]
            outcomes = judge.grade([Question(found[place].prompt, found[place].text) for place in places], self.tick)
            for place, outcome in zip(places, outcomes, strict=True):
                answer = found[place]
                found[place] = replace(answer, outcomes={**answer.outcomes, spec.name: outcome})
        return tuple(found)

    def seen(self, observed: Observations) -> Observations:
        """As `graded`, for one stage, and the quality of its benign answers."""
        return replace(observed, answers=self.graded(observed.answers), quality=self._quality(observed.answers))

    def _quality(self, answers: Sequence[Answer]) -> tuple[Quality, ...]:
        """A grade for each answer to a utility prompt, where the policy names a judge of quality."""
        spec = self.policy.utility.quality
        if spec is None:
            return ()
        benign = [answer for answer in answers if answer.behavior == "utility"]
        grades = self._judges[spec].grades([Question(each.prompt, each.text) for each in benign], self.tick)
        return tuple(
            Quality(answer.prompt, answer.cluster, int(grade) if grade else None)
            for answer, grade in zip(benign, grades, strict=True)
        )

    def rehearsed(self, rehearsal: Rehearsal) -> Rehearsal:
        """As `graded`, for the answers of the copy with a canary."""
        return replace(rehearsal, before=self.graded(rehearsal.before), after=self.graded(rehearsal.after))

    def findings(self) -> tuple[Finding, ...]:
        """One for each judge that left answers unscored."""
        return tuple(finding for judge in self._judges.values() if (finding := judge.finding()))

    def records(self) -> tuple[ServedJudge, ...]:
        return tuple(judge.record() for judge in self._judges.values())
