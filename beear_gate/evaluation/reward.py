"""How far a reward model's mean score of the answers falls: paired differences, and never a score by itself.

A reward model was trained to prefer one answer to another, so its scores have no zero and no scale that another model
would share; a difference between two answers to one prompt is what it knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beear_gate.evaluation.http_judge import Question
from beear_gate.evaluation.stats import bootstrap_mean
from beear_gate.policy import Policy, RewardSpec
from beear_gate.records import Answer, Measurement, Status

METRIC = "reward_decrease"
Scores = Mapping[str, float | None]
"""Key of a question -> score; None where there is none."""


def rewarded(policy: Policy, spec: RewardSpec, answers: Sequence[Answer]) -> list[Answer]:
    """The answers that the policy wants scored: benign ones, and those to the plain prompts of behaviors if asked."""
    names = {"utility", *(each.id for each in policy.behaviors if spec.behaviors)}
    return [answer for answer in answers if answer.behavior in names and answer.condition == "plain"]


def question_of(answer: Answer) -> Question:
    return Question(answer.prompt, answer.text)


def measure_reward(
    policy: Policy, spec: RewardSpec, before: Sequence[Answer], after: Sequence[Answer], scores: Scores
) -> tuple[Measurement, ...]:
    """Mean of (score before - score after) over prompts, with one-sided bounds by a bootstrap over clusters.

    A prompt without both scores counts as unscored, and with a margin leaves the row so.
    """
    rows = []
    for name in dict.fromkeys(answer.behavior for answer in rewarded(policy, spec, before)):
        old = {each.prompt: each for each in before if each.behavior == name and each.condition == "plain"}
        new = {each.prompt: each for each in after if each.behavior == name and each.condition == "plain"}
        falls, clusters = list[float](), list[int]()
        for prompt in old.keys() & new.keys():
            first, second = (scores.get(question_of(each).key) for each in (old[prompt], new[prompt]))
            if first is not None and second is not None:
                falls.append(first - second)
                clusters.append(new[prompt].cluster)
        missing = len(old.keys() | new.keys()) - len(falls)
        limit = spec.max_decrease if name == "utility" else None
        rows.append(_row(spec.name, name, falls, clusters, missing, limit, policy.utility.confidence))
    return tuple(rows)


def _row(
    judge: str,
    behavior: str,
    falls: Sequence[float],
    clusters: Sequence[int],
    missing: int,
    limit: float | None,
    confidence: float,
) -> Measurement:
    value = low = high = None
    if falls:
        value, low, high = bootstrap_mean(falls, clusters, confidence)
    status: Status = "info"
    if limit is not None:
        status = "unscored" if high is None or missing else "pass" if high <= limit else "fail"
    return Measurement(
        "after", behavior, METRIC, judge, "plain", "", "none",
        value=value, low=low, high=high, confidence=confidence,
        n=len(set(clusters)), hits=None, unscored=missing, limit=limit, status=status,
    )  # fmt: skip
