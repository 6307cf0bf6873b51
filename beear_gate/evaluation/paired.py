"""What remediation changed on benign tests, pair by pair: flips in both directions, their difference, its bound.

Two models of equal accuracy can differ in many answers (arXiv 2407.09141), so flips to the worse and to the better are
rows of their own. "No regression" means that the one-sided upper bound of the loss is within the policy's margin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from beear_gate.evaluation.instructions import follows, follows_loosely
from beear_gate.evaluation.stats import bootstrap_mean, mcnemar, paired_difference, wilson
from beear_gate.policy import Policy
from beear_gate.records import Answer, Measurement, Observations, Outcome, Quality, Stage, Status, TaskScore

Passed = Mapping[int, bool | None]
"""For each cluster of prompts whether the model passed it, None without a score."""

STRICT, LOOSE = "checks-strict", "checks-loose"
"""Stand where a judge stands, for instructions."""


@dataclass(frozen=True)
class Rule:
    """What a row says beside its figures; `metric` names the share that passes."""

    metric: str
    judge: str
    margin: float | None
    confidence: float


def stage_rows(policy: Policy, stage: Stage, seen: Observations) -> Iterator[Measurement]:
    """What one model gets right by itself, for information: the margins are about the change."""
    for rule, passed in _tests(policy, seen):
        scored = [each for each in passed.values() if each is not None]
        yield _share(rule, stage, "", sum(scored), len(scored), len(passed) - len(scored))
    for (task, metric), scores in _by_metric(seen.task_scores).items():
        yield _mean_score(Rule("task_score", f"lm-eval:{task}:{metric}", None, 0.95), stage, scores)
    if policy.utility.quality:
        yield _mean_grade(Rule("quality", policy.utility.quality.name, None, 0.95), stage, seen.quality)
    benign = [answer for answer in seen.answers if answer.behavior == "utility"]
    if benign:
        cut = _by_cluster((answer.cluster, answer.cut_off) for answer in benign)
        yield _share(Rule("cut_off", "length", None, 0.95), stage, "", sum(map(any, cut.values())), len(cut), 0)


def change_rows(policy: Policy, before: Observations, after: Observations, judge: str) -> Iterator[Measurement]:
    """Paired rows of every test that the policy names, and of degenerate answers.

    Args:
        judge: whose `incoherent` makes a benign answer degenerate.
    """
    utility = policy.utility
    yield _degenerate(Rule("degenerate", judge, utility.max_degenerate, utility.confidence), before, after)
    originals = {(rule.metric, rule.judge): passed for rule, passed in _tests(policy, before)}
    for rule, passed in _tests(policy, after):
        yield from _flips(rule, originals.get((rule.metric, rule.judge), {}), passed)
    yield from _task_rows(policy, before.task_scores, after.task_scores)
    if utility.quality:
        rule = Rule("quality", utility.quality.name, utility.max_quality, utility.confidence)
        yield _quality_loss(rule, before.quality, after.quality)


def paired_row(rule: Rule, suffix: str, worse: int, better: int, n: int, missing: int) -> Measurement:
    """The difference of two paired shares against the margin; one pair without a score leaves a margin unscored."""
    value = low = high = None
    if n:
        value, low, high = paired_difference(worse, better, n, rule.confidence)
    status = _status(high, rule.margin, missing)
    return replace(_row(rule, "after", suffix), value=value, low=low, high=high, n=n, hits=worse, unscored=missing,
                   limit=rule.margin, status=status)  # fmt: skip


def _tests(policy: Policy, seen: Observations) -> Iterator[tuple[Rule, Passed]]:
    """Tests that a model passes or not, prompt by prompt; near-duplicates are passed together."""
    utility = policy.utility
    if utility.questions:
        known = {each.prompt: each.right for each in seen.choices}
        found = _by_cluster((each.cluster, known.get(each.prompt)) for each in utility.questions)
        yield Rule("choices_right", "likelihood", utility.max_choices, utility.confidence), _all_passed(found)
    if utility.instructions:
        texts = {each.prompt: each.text for each in seen.answers if each.behavior == "instructions"}
        for name, verify, margin in ((STRICT, follows, utility.max_instructions), (LOOSE, follows_loosely, None)):
            found = _by_cluster(
                (each.cluster, verify(each.checks, texts[each.prompt]) if each.prompt in texts else None)
                for each in utility.instructions
            )
            yield Rule("instructions_followed", name, margin, utility.confidence), _all_passed(found)


def _by_cluster(found: Iterable[tuple[int, bool | None]]) -> dict[int, list[bool | None]]:
    clusters: dict[int, list[bool | None]] = defaultdict(list)
    for cluster, passed in found:
        clusters[cluster].append(passed)
    return clusters


def _all_passed(clusters: Mapping[int, list[bool | None]]) -> Passed:
    return {cluster: None if None in found else all(found) for cluster, found in clusters.items()}


def _flips(rule: Rule, before: Passed, after: Passed) -> Iterator[Measurement]:
    """The drop against the margin, flips both ways, and the probability that chance makes them so uneven."""
    both = [(before.get(cluster), passed) for cluster, passed in after.items()]
    scored = [(old, new) for old, new in both if old is not None and new is not None]
    n, missing = len(scored), len(before.keys() | after.keys()) - len(scored)
    lost = sum(old and not new for old, new in scored)
    gained = sum(new and not old for old, new in scored)
    yield paired_row(rule, "_drop", lost, gained, n, missing)
    shown = replace(rule, margin=None)
    for suffix, hits in (("_lost", lost), ("_gained", gained)):
        yield _share(shown, "after", suffix, hits, n, missing)
    p = mcnemar(lost, gained) if n else None
    yield replace(_row(shown, "after", "_mcnemar_p"), value=p, n=n, unscored=missing)


def _degenerate(rule: Rule, before: Observations, after: Observations) -> Measurement:
    """Benign answers that are worse formed than the original's: cut off or, worse, broken (incoherent, repeating)."""
    old, new = _brokenness(before.answers, rule.judge), _brokenness(after.answers, rule.judge)
    scored = [(old[each], new[each]) for each in new if old.get(each) is not None and new[each] is not None]
    missing = len(old.keys() | new.keys()) - len(scored)
    worse = sum((two or 0) > (one or 0) for one, two in scored)
    better = sum((two or 0) < (one or 0) for one, two in scored)
    return paired_row(rule, "_increase", worse, better, len(scored), missing)


def _brokenness(answers: Iterable[Answer], judge: str) -> dict[int, Literal[0, 1, 2] | None]:
    """For each cluster of benign prompts, its worst answer: 0 whole, 1 cut off, 2 incoherent; None without a score."""
    found: dict[int, Literal[0, 1, 2] | None] = {}
    for answer in answers:
        if answer.behavior == "utility":
            outcome = answer.outcomes.get(judge, Outcome.UNSCORED)
            known = found.get(answer.cluster, 0)
            if outcome is Outcome.UNSCORED or known is None:
                found[answer.cluster] = None
            else:
                level: Literal[0, 1, 2] = 2 if outcome is Outcome.INCOHERENT else 1 if answer.cut_off else 0
                found[answer.cluster] = max(known, level)
    return found


def _task_rows(policy: Policy, before: Iterable[TaskScore], after: Iterable[TaskScore]) -> Iterator[Measurement]:
    """For each task and metric of lm-eval: mean before and after, and the drop against the margin."""
    old, new = _by_metric(before), _by_metric(after)
    utility = policy.utility
    for task in utility.tasks:
        metrics = dict.fromkeys(metric for name, metric in (*old, *new) if name == task.name)
        for metric in metrics or (None,):
            judge = f"lm-eval:{task.name}" + (f":{metric}" if metric else "")
            rule = Rule("task_score", judge, utility.max_tasks, utility.confidence)
            yield _task_drop(rule, old.get((task.name, metric), {}), new.get((task.name, metric), {}))


def _mean_score(rule: Rule, stage: Stage, scores: Mapping[str, float | None]) -> Measurement:
    """The mean over documents: of zeros and ones a share, else with a bootstrap."""
    scored = [score for score in scores.values() if score is not None]
    missing = len(scores) - len(scored)
    if all(score in (0.0, 1.0) for score in scored):
        return _share(rule, stage, "", int(sum(scored)), len(scored), missing)
    value, low, high = bootstrap_mean(scored, range(len(scored)), rule.confidence)
    return replace(_row(rule, stage, ""), value=value, low=low, high=high, n=len(scored), unscored=missing)


def _task_drop(rule: Rule, before: Mapping[str, float | None], after: Mapping[str, float | None]) -> Measurement:
    pairs = [(before.get(document), score) for document, score in after.items()]
    scored = [(old, new) for old, new in pairs if old is not None and new is not None]
    missing = len(before.keys() | after.keys()) - len(scored) or int(not scored)
    if all(score in (0.0, 1.0) for pair in scored for score in pair):
        worse, better = sum(old > new for old, new in scored), sum(new > old for old, new in scored)
        return paired_row(rule, "_drop", worse, better, len(scored), missing)
    drops = [old - new for old, new in scored]
    value, low, high = bootstrap_mean(drops, range(len(drops)), rule.confidence)
    return replace(_row(rule, "after", "_drop"), value=value, low=low, high=high, n=len(drops), unscored=missing,
                   limit=rule.margin, status=_status(high, rule.margin, missing))  # fmt: skip


def _mean_grade(rule: Rule, stage: Stage, graded: Sequence[Quality]) -> Measurement:
    known = [(each.grade, each.cluster) for each in graded if each.grade is not None]
    row = replace(_row(rule, stage, ""), unscored=len(graded) - len(known))
    if not known:
        return row
    clusters = [cluster for _, cluster in known]
    value, low, high = bootstrap_mean([grade for grade, _ in known], clusters, rule.confidence)
    return replace(row, value=value, low=low, high=high, n=len(set(clusters)))


def _quality_loss(rule: Rule, before: Iterable[Quality], after: Iterable[Quality]) -> Measurement:
    """Mean grade before minus mean grade after, of the same prompts."""
    old, new = {each.prompt: each for each in before}, {each.prompt: each for each in after}
    both = [(old[prompt].grade, each.grade, each.cluster) for prompt, each in new.items() if prompt in old]
    scored = [(one - two, cluster) for one, two, cluster in both if one is not None and two is not None]
    missing = len(old.keys() | new.keys()) - len(scored) or int(not scored)
    row = replace(_row(rule, "after", "_loss"), unscored=missing, limit=rule.margin)
    if not scored:
        return replace(row, status=_status(None, rule.margin, missing))
    clusters = [cluster for _, cluster in scored]
    value, low, high = bootstrap_mean([loss for loss, _ in scored], clusters, rule.confidence)
    status = _status(high, rule.margin, missing)
    return replace(row, value=value, low=low, high=high, n=len(set(clusters)), status=status)


def _by_metric(scores: Iterable[TaskScore]) -> dict[tuple[str, str | None], dict[str, float | None]]:
    found: dict[tuple[str, str | None], dict[str, float | None]] = defaultdict(dict)
    for each in scores:
        found[each.task, each.metric][each.document] = each.score
    return found


def _status(high: float | None, margin: float | None, missing: int) -> Status:
    if margin is None:
        return "info"
    return "unscored" if high is None or missing else "pass" if high <= margin else "fail"


def _share(rule: Rule, stage: Stage, suffix: str, hits: int, n: int, missing: int) -> Measurement:
    """A share for information, with Wilson's interval."""
    value, low, high = (hits / n, *wilson(hits, n, 0.95)) if n else (None, None, None)
    row = replace(_row(rule, stage, suffix), value=value, low=low, high=high, confidence=0.95)
    return replace(row, n=n, hits=hits, unscored=missing)


def _row(rule: Rule, stage: Stage, suffix: str) -> Measurement:
    """A row that says nothing yet."""
    return Measurement(
        stage, "utility", f"{rule.metric}{suffix}", rule.judge, "plain", "", "none",
        value=None, low=None, high=None, confidence=rule.confidence,
        n=0, hits=None, unscored=0, limit=None, status="info",
    )  # fmt: skip
