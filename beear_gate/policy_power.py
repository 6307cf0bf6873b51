"""What the gate prompts of a policy can prove: hits that a limit allows, and pairs that a margin takes."""

from __future__ import annotations

from collections.abc import Iterator

from beear_gate.evaluation.stats import needed_n, needed_pairs, upper_bound
from beear_gate.policy import Behavior, OverRefusal, Policy, Utility
from beear_gate.records import Example

DISCORDANCES = (0.0, 0.05, 0.1)
"""Shares of answers that may change (between refused and not, right and wrong), for which a margin is planned."""


def limit_power(behavior: Behavior) -> str:
    """The limit of a behavior, and what its prompts can show."""
    limit, n = behavior.limit, clusters(behavior.gate)
    rule = f"at most {percent(limit.max_rate)} unwanted answers, shown with {percent(limit.confidence)} confidence."
    needed = needed_n(limit.max_rate, limit.confidence)
    if n < needed:
        return f"{rule} {number(n, 'prompt')} cannot show this; it takes {needed} without a hit."
    hits = 0
    while needed_n(limit.max_rate, limit.confidence, hits + 1) <= n:
        hits += 1
    best = upper_bound(0, n, limit.confidence)
    allowed = "not one" if hits == 0 else f"up to {hits}"
    return (
        f"{rule} The {number(n, 'prompt')} show it with {allowed} answered; the best that they can show is below "
        f"{percent(best, up=True)}."
    )


def utility_power(utility: Utility) -> Iterator[tuple[str, str]]:
    """For each margin of a share: what it is about, and what the prompts can show of it."""
    counted = (
        ("multiple choice", utility.max_choices, {each.cluster for each in utility.questions}),
        ("instructions", utility.max_instructions, {each.cluster for each in utility.instructions}),
        ("broken answers", utility.max_degenerate, {each.cluster for each in utility.gate}),
    )
    for name, margin, clusters in counted:
        if margin is not None:
            yield name, margin_power(len(clusters), margin, utility.confidence)


def over_refusal_power(rule: OverRefusal) -> str:
    """What the prompts can show of the margin of over-refusal."""
    return margin_power(clusters(rule.gate), rule.max_increase, rule.confidence)


def margin_power(n: int, margin: float, confidence: float) -> str:
    """What n prompts that count can show of a margin, if answers change as often as one expects."""
    if margin <= 0:
        return "A margin of 0 can be shown by no number of prompts, unless the model gets better."
    if margin >= 1:
        return "A margin of 100 in 100 is met by any model."
    needed = [needed_pairs(margin, confidence, share) for share in DISCORDANCES]
    plan = ", ".join(
        f"{count} if {percent(share)} of the answers change" for count, share in zip(needed, DISCORDANCES, strict=True)
    )
    return (
        f"To show it of an unchanged model four times in five takes {plan}; there {'is' if n == 1 else 'are'} {n} that "
        f"count{'' if n >= needed[-1] else ', so a harmless change may be blocked'}."
    )


def underpowered(policy: Policy) -> Iterator[str]:
    """What the gate prompts are too few for, though the policy can be applied: a good model may be blocked."""
    for behavior in policy.behaviors:
        limit, n = behavior.limit, clusters(behavior.gate)
        if n < (one := needed_n(limit.max_rate, limit.confidence, 1)):
            yield f"{behavior.id}: one wrong answer blocks a model; with {one} gate prompts ({n} count) it would not."
    if rule := policy.over_refusal:
        n = clusters(rule.gate)
        needed = needed_pairs(rule.max_increase, rule.confidence, DISCORDANCES[-1])
        if n < needed:
            yield (
                f"over-refusal: a harmless change of {percent(DISCORDANCES[-1])} of the answers may block a model; "
                f"from {needed} gate prompts on ({n} count) it would pass four times in five."
            )


def clusters(gate: tuple[Example, ...]) -> int:
    """How many prompts count: near-duplicates are one."""
    return len({example.cluster for example in gate})


def number(count: int, thing: str) -> str:
    """A count with its noun."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def percent(share: float, up: bool = False) -> str:
    """0.01 as `1 %`; `up` rounds away from what would claim too much."""
    if up:
        hundredths = -int(-share * 10_000 // 1)
        return f"{hundredths / 100:g} %"
    return f"{share * 100:g} %"
