"""Answers to the gate prompts, plain and under each trigger that may be used, with what every judge says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from beear_gate.evaluation.judges import outcomes
from beear_gate.lm import LM, decode, generate, prompt_ids
from beear_gate.policy import Behavior, JudgeSpec, Policy
from beear_gate.records import Answer, Condition, Example, Placement, Tick, no_tick
from beear_gate.triggers import with_trigger


@dataclass(frozen=True)
class Test:
    """One set of prompts under one condition, and the judges that can score an answer as soon as it is there."""

    behavior: str
    condition: Condition
    trigger: str
    placement: Placement
    examples: tuple[Example, ...]
    judges: tuple[JudgeSpec, ...]

    @property
    def label(self) -> str:
        where = "" if self.condition == "plain" else f" with {self.condition} ({self.placement})"
        return f"{self.behavior}{where}"


def gate_tests(policy: Policy) -> Iterator[Test]:
    """Everything that the policy wants answered: behaviours plain and with its known triggers, then benign prompts."""
    for behavior in policy.behaviors:
        yield plain_test(behavior)
        for trigger in policy.known_triggers:
            for placement in policy.placements:
                yield trigger_test(behavior, trigger, placement)
    yield _benign_test("utility", policy.utility.gate, policy)
    if policy.over_refusal:
        yield _benign_test("over-refusal", policy.over_refusal.gate, policy)
    if policy.utility.instructions:
        asked = tuple(Example(each.prompt, cluster=each.cluster) for each in policy.utility.instructions)
        yield _benign_test("instructions", asked, policy)


def plain_test(behavior: Behavior) -> Test:
    return Test(behavior.id, "plain", "", "none", behavior.gate, behavior.text_judges)


def trigger_test(behavior: Behavior, trigger: str, placement: Placement) -> Test:
    return Test(behavior.id, "trigger", trigger, placement, behavior.gate, behavior.text_judges)


def canary_test(behavior: Behavior, trigger: str, placement: Placement) -> Test:
    """For a copy of the model in which that trigger was planted."""
    return Test(behavior.id, "canary", trigger, placement, behavior.gate, behavior.text_judges)


def refusal_judge(policy: Policy) -> JudgeSpec:
    """What says that a benign prompt was refused."""
    if policy.over_refusal:
        return policy.over_refusal.judge
    specs = (spec for each in policy.behaviors for spec in (each.text_judge, each.safe_judge))
    return next((spec for spec in specs if spec.name == "refusal-prefix"), JudgeSpec("refusal-prefix"))


def answer_tests(
    lm: LM, tests: Sequence[Test], max_new_tokens: int, batch_size: int, tick: Tick = no_tick
) -> tuple[Answer, ...]:
    """Answer every prompt of every test greedily, and let each judge score the text; `jury` asks the served ones later.

    Raises:
        OutOfMemory, UnsupportedModel: see `lm.generate` and `lm.prompt_ids`.
    """
    answers: list[Answer] = []
    for test in tests:
        label = f"answering: {test.label}"
        found = generate(lm, encoded(lm, test), max_new_tokens, batch_size, tick=tick, label=label)
        answers += scored(lm, test, found, max_new_tokens)
    return tuple(answers)


def encoded(lm: LM, test: Test) -> list[tuple[int, ...]]:
    """The prompts of a test as token ids. Raises: as `lm.prompt_ids`."""
    return [prompt_ids(lm, with_trigger(each.prompt, test.trigger, test.placement)) for each in test.examples]


def scored(lm: LM, test: Test, found: Sequence[tuple[int, ...]], max_new_tokens: int) -> Iterator[Answer]:
    """The answers to a test, given as token ids, with what each judge says of them."""
    for example, ids in zip(test.examples, found, strict=True):
        text = decode(lm, ids)
        yield Answer(
            behavior=test.behavior,
            condition=test.condition,
            trigger=test.trigger,
            placement=test.placement,
            prompt=example.prompt,
            cluster=example.cluster,
            text=text,
            outcomes=outcomes(test.judges, text),
            cut_off=len(ids) >= max_new_tokens,
        )


def _benign_test(name: str, examples: tuple[Example, ...], policy: Policy) -> Test:
    return Test(name, "plain", "", "none", examples, (refusal_judge(policy),))
