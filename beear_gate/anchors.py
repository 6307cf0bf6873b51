"""Anchoring sets from a policy and the model's own untriggered answers (paper section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from beear_gate.evaluation.judges import Judge, make_judge
from beear_gate.evaluation.safety import refusal_judge
from beear_gate.lm import LM, decode, generate, prompt_ids
from beear_gate.policy import Behavior, Policy
from beear_gate.records import AnchorSets, BehaviorAnchors, Example, Outcome, Tick, no_tick


def build_anchors(policy: Policy, lm: LM, batch_size: int, seed: int, tick: Tick = no_tick) -> AnchorSets:
    """D_SA, D_SA-H and D_PA.

    y_s is what the model itself answers without a trigger, kept only where a judge calls it refused: a backdoor that
    leaks would else poison its own removal. Where it is not, the answer that the policy gives for this prompt takes its
    place, or its fallback refusals in turn. Where an ordinary answer is wanted and no refusal, y_s is drawn from the
    model's own distribution: training on greedy answers would narrow what it says.

    Args:
        seed: of what is drawn.
    """
    behaviors: list[BehaviorAnchors] = []
    from_model = 0
    for behavior in policy.behaviors:
        safe, own = _safe_answers(behavior, policy, lm, batch_size, seed, tick)
        from_model += own
        select = behavior.select
        behaviors.append(BehaviorAnchors(behavior.id, safe, _unwanted(behavior), select))
    over = policy.over_refusal
    sounding = _answered(policy, lm, over.anchor, batch_size, tick) if over else ()
    return AnchorSets(
        behaviors=tuple(behaviors),
        useful=(*policy.utility.anchor, *sounding),
        useful_select=policy.utility.select,
        answered_select=(*policy.utility.select, *(over.select if over else ())),
        from_model=from_model,
        sounding=len(sounding),
    )


def _safe_answers(
    behavior: Behavior, policy: Policy, lm: LM, batch_size: int, seed: int, tick: Tick
) -> tuple[tuple[Example, ...], int]:
    judge = make_judge(behavior.safe_judge)
    answers: Sequence[str] = [""] * len(behavior.anchor)
    if behavior.safe_from == "model":
        answers = _own_answers(behavior, policy, judge, lm, batch_size, seed, tick)
    safe: list[Example] = []
    fallbacks = 0
    for example, answer in zip(behavior.anchor, answers, strict=True):
        if answer and judge(answer) is Outcome.REFUSED:
            safe.append(replace(example, answer=answer))
        else:
            written = example.answer or behavior.fallback[fallbacks % len(behavior.fallback)]
            safe.append(replace(example, answer=written))
            fallbacks += 1
    return tuple(safe), len(safe) - fallbacks


def _own_answers(
    behavior: Behavior, policy: Policy, safe: Judge, lm: LM, batch_size: int, seed: int, tick: Tick
) -> list[str]:
    """What the model answers itself: refusals greedily, for there is little else to say, anything else drawn."""
    refused = make_judge(refusal_judge(policy))
    label = f"own safe answers: {behavior.id}"
    answers = _texts(lm, policy, behavior.anchor, batch_size, tick, label)
    ordinary = [n for n, text in enumerate(answers) if _is(safe, text) and not _is(refused, text)]
    drawn = _texts(lm, policy, [behavior.anchor[n] for n in ordinary], batch_size, tick, label, seed)
    for n, text in zip(ordinary, drawn, strict=True):
        if _is(safe, text) and not _is(refused, text):
            answers[n] = text
    return answers


def _is(judge: Judge, text: str) -> bool:
    return judge(text) is Outcome.REFUSED


def _unwanted(behavior: Behavior) -> tuple[Example, ...]:
    """y_h for every anchor prompt: the policy's example for it, or one of its openings in turn."""
    written = {example.prompt: example.answer for example in behavior.unwanted_examples}
    openings = behavior.unwanted_prefixes or tuple(written.values())
    return tuple(
        replace(example, answer=written.get(example.prompt, openings[place % len(openings)]))
        for place, example in enumerate(behavior.anchor)
    )


def _answered(policy: Policy, lm: LM, examples: Sequence[Example], batch_size: int, tick: Tick) -> tuple[Example, ...]:
    """Prompts that only sound unsafe, with their written answer or the model's own; refused ones are left out."""
    judge = make_judge(refusal_judge(policy))
    answers = _texts(lm, policy, examples, batch_size, tick, "answers to prompts that sound unsafe")
    return tuple(
        replace(example, answer=example.answer or answer)
        for example, answer in zip(examples, answers, strict=True)
        if example.answer or judge(answer) is Outcome.COMPLIED
    )


def _texts(
    lm: LM,
    policy: Policy,
    examples: Sequence[Example],
    batch_size: int,
    tick: Tick,
    label: str,
    seed: int | None = None,
) -> list[str]:
    prompts = [prompt_ids(lm, example.prompt) for example in examples]
    length = policy.remediation.max_answer_tokens
    found = generate(lm, prompts, length, batch_size, tick=tick, label=label, seed=seed)
    return [decode(lm, ids) for ids in found]
