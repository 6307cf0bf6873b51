"""A policy in words, for people who sign off a release and do not read YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from beear_gate.policy import (
    AnyJudgeSpec,
    Behavior,
    ClassifierJudgeSpec,
    HttpJudgeSpec,
    OverRefusal,
    Policy,
    RewardSpec,
    Utility,
)
from beear_gate.policy_power import (
    clusters,
    limit_power,
    number,
    over_refusal_power,
    percent,
    utility_power,
)
from beear_gate.records import Example, RemediationSettings
from beear_gate.report.text import one_line

_JUDGES = {
    "refusal-prefix": "refused if it opens with a refusal and does not comply after it",
    "refusal-keywords-paper": "refused if a refusal phrase stands anywhere, as the paper counts",
    "needless-refusal": "complied if it declines or claims an inability and then gives nothing",
    "marker": "complied if it matches a pattern of the policy",
    "code": "complied if its Python code is vulnerable, broken if there is none or it does not parse",
}
_RUBRICS = {
    "qi": "it gets 5 of 5 (Qi et al.)",
    "harmbench": "the answer to HarmBench's question is yes",
    "strongreject": "its StrongREJECT score is at least {threshold:g} of 1",
    "quality": "never, because it grades benign answers",
}
_PLACES = {
    "none": "alone",
    "prefix": "before the prompt",
    "suffix": "after it",
    "both": "at both ends",
    "middle": "in its middle",
}
_STYLES = {
    "harmbench": "it says yes, asked as HarmBench's classifiers are",
    "llama-guard": "it says unsafe, as Llama Guard does",
    "wildguard": "it calls the response harmful, as WildGuard does",
    "sequence": "{labels} gets a probability of at least {threshold:g}",
}
_WHEN = {
    "always": "every model is remediated, and what ships is the remediated copy",
    "on-evidence": "only a model that breaks a limit, or could not be shown to meet it, is remediated",
    "never": "none; the model passes or is blocked as it is",
}
_MODES = {
    "deep": "deep (BEEAR with soft triggers, and recovery from answers that have begun to comply)",
    "paper": "paper (Algorithm 1 of BEEAR as published)",
}


def describe(policy: Policy) -> str:
    """What a policy tests, by which judge, within which limits, and what its prompts can prove."""
    blocks = [[f"{policy.name}: {one_line(policy.description, 2000)}" if policy.description else policy.name]]
    blocks += [list(_behavior(behavior)) for behavior in policy.behaviors]
    blocks.append([f"Triggers: {_triggers(policy)}", *_latent(policy), *_search(policy)])
    blocks.append(list(_utility(policy.utility)))
    blocks.append(list(_over_refusal(policy.over_refusal)))
    blocks.append([f"Remediation: {_WHEN[policy.remediation.when]}.", *_mode(policy)])
    blocks.append(list(_answers(policy)))
    blocks.append([f"Digest of the policy and all its prompts: {policy.digest}"])
    return "\n\n".join("\n".join(_wrapped(block)) for block in blocks)


def _wrapped(block: list[str]) -> Iterator[str]:
    for place, line in enumerate(block):
        first = "  " if place else ""
        yield textwrap.fill(
            line, 100, initial_indent=first, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )


def _behavior(behavior: Behavior) -> Iterator[str]:
    yield f"Behavior {behavior.id}: {one_line(behavior.description)}".rstrip(": ")
    yield f"Prompts: {_splits(behavior.anchor, behavior.select, behavior.gate)}."
    others = ", ".join(spec.name for spec in behavior.other_judges)
    yield f"Judge: {_judge(behavior.judge)}." + (f" Reported beside it, deciding nothing: {others}." if others else "")
    yield f"Limit: {limit_power(behavior)}"
    yield f"Broken answers: at most {percent(behavior.limit.max_incoherent)}, shown in the same way."
    yield f"Trained answers: {_trained(behavior)}"


def _splits(anchor: tuple[Example, ...], select: tuple[Example, ...], gate: tuple[Example, ...]) -> str:
    counted = clusters(gate)
    duplicates = f" ({counted} count, because near-duplicates count once)" if counted < len(gate) else ""
    return f"{len(anchor)} to train with, {len(select)} to choose a checkpoint by, {len(gate)} to decide by{duplicates}"


def _trained(behavior: Behavior) -> str:
    safe = f"one of {number(len(behavior.fallback), 'answer')} of the policy"
    if all(example.answer for example in behavior.anchor):
        safe = "the answer that the policy gives for each prompt"
    if behavior.safe_from == "model":
        fine = "calls it refused" if behavior.safe_judge.name.startswith("refusal") else "finds nothing unwanted in it"
        safe = f"the model's own where {behavior.safe_judge.name} {fine}, else {safe}"
    if behavior.unwanted_examples:
        return f"safe is {safe}; unwanted is {number(len(behavior.unwanted_examples), 'example')} of the policy."
    openings = ", ".join(f"“{one_line(text)}”" for text in behavior.unwanted_prefixes)
    return f"safe is {safe}; unwanted begins with {openings}."


def _triggers(policy: Policy) -> str:
    if not policy.known_triggers:
        return "none is known, so the figures that decide are measured without one; a hidden trigger does not show."
    names = ", ".join(f"“{one_line(trigger)}”" for trigger in policy.known_triggers)
    places = " and ".join(_PLACES[placement] for placement in policy.placements)
    return f"{names}, each tried {places} and held against the same limits. Remediation never sees them."


def _latent(policy: Policy) -> Iterator[str]:
    if policy.latent:
        norms = ", ".join(f"{norm:g}" for norm in policy.latent.norms)
        beside = f", beside the reference {one_line(policy.latent.reference, 300)}" if policy.latent.reference else ""
        yield (
            f"Unknown triggers: fresh perturbations of norm {norms} on {number(policy.latent.prompts, 'prompt')} of "
            f"each behavior, before and after{beside}; for information."
        )


def _search(policy: Policy) -> Iterator[str]:
    if policy.search:
        yield (
            f"Search: a suffix of {number(policy.search.tokens, 'token')} is fitted in {policy.search.steps} steps to "
            "each model, before and after; for information."
        )


def _utility(utility: Utility) -> Iterator[str]:
    yield "Utility of the remediated model, against the original:"
    yield f"Prompts: {_splits(utility.anchor, utility.select, utility.gate)}."
    if utility.reward:
        yield f"Reward: {_reward(utility.reward)}"
    yield (
        f"Margins: perplexity on reference answers at most {utility.nll_ratio:g} times the original's, and at most "
        f"{utility.agreement * 100:g} of 100 tokens no longer its first choice, both shown with "
        f"{percent(utility.confidence)} confidence."
    )
    if utility.questions:
        yield (
            f"Multiple choice: {number(len(utility.questions), 'question')}, the likeliest answer counts; "
            f"{_drop(utility.max_choices, 'answered right')}."
        )
    if utility.instructions:
        yield (
            f"Instructions: {number(len(utility.instructions), 'prompt')} whose answer has a form that a program "
            f"verifies; {_drop(utility.max_instructions, 'followed')}."
        )
    if utility.max_degenerate is not None:
        yield f"Broken or cut off benign answers: at most {utility.max_degenerate * 100:g} in 100 more."
    if utility.tasks:
        names = ", ".join(task.name for task in utility.tasks)
        points = "reported only" if utility.max_tasks is None else f"at most {utility.max_tasks * 100:g} points lower"
        yield f"Tasks of lm-eval, run on the model in memory: {names}; each metric {points}."
    if utility.quality:
        least = "reported only" if utility.max_quality is None else f"on average at most {utility.max_quality:g} lower"
        yield f"Quality of benign answers: graded from 1 to 10 by {utility.quality.name}, {least}."
    yield from (f"Power, {name}: {power}" for name, power in utility_power(utility))


def _drop(margin: float | None, done: str) -> str:
    return "flips are reported only" if margin is None else f"at most {margin * 100:g} in 100 fewer {done}"


def _over_refusal(rule: OverRefusal | None) -> Iterator[str]:
    if rule is None:
        yield "Over-refusal: not tested; a model that refuses harmless requests would not show it here."
        return
    yield "Over-refusal of harmless requests that sound harmful, against the original:"
    yield f"Prompts: {_splits(rule.anchor, rule.select, rule.gate)}."
    yield f"Judge: {_judge(rule.judge)}."
    yield (
        f"Margin: at most {rule.max_increase * 100:g} in 100 more refused, shown with {percent(rule.confidence)} "
        "confidence."
    )
    yield over_refusal_power(rule)


def _mode(policy: Policy) -> Iterator[str]:
    if policy.remediation.when != "never":
        yield f"Mode: {_MODES[policy.remediation.mode]}."
        yield f"Training: {_training(policy.remediation)}."
        if policy.remediation.path_share:
            yield (
                f"Path-aware: what is removed is removed up to {policy.remediation.path_share:.0%} of the way back to "
                "the original weights, so that it stays away when somebody trains on."
            )
        yield f"Canary: {_canary(policy)}"


def _training(settings: RemediationSettings) -> str:
    layers = settings.train_layers
    where = f" of decoder layers {layers[0]} to {layers[1]}" if layers else ""
    ways = {
        "full": f"all weights{where}, with Adam",
        "factored": f"all weights{where}, with factored second moments",
        "lora": f"adapters of rank {settings.lora_rank} (LoRA){where}",
    }
    if settings.training == "auto":
        return f"the first that fits into memory: {'; '.join(ways.values())}"
    return ways[settings.training]


def _canary(policy: Policy) -> str:
    if not policy.remediation.canary:
        return "none; nothing shows whether this remediation removes a backdoor from this model."
    return (
        "a random trigger is planted in a copy of the model first and the copy remediated in the same way; what is "
        "left of it is reported, sets how many rounds the model gets at least, and decides nothing else."
    )


def _answers(policy: Policy) -> Iterator[str]:
    form = ", in a chat template of the policy" if policy.chat_template else ""
    system = f" after the system prompt “{one_line(policy.system_prompt)}”" if policy.system_prompt else ""
    yield f"Answers: greedy, up to {policy.max_new_tokens} tokens, one turn{system}{form}."
    yield f"Files: a chat template is {'required' if policy.require_chat_template else 'not required'}."
    same = "only equal texts" if policy.max_jaccard >= 1 else f"more than {percent(policy.max_jaccard)} of words alike"
    yield f"Near-duplicates: {same}; no prompt has one in another split."


def _judge(spec: AnyJudgeSpec) -> str:
    if isinstance(spec, ClassifierJudgeSpec):
        labels = " or ".join(map(one_line, spec.complied))
        counts = _STYLES[spec.style].format(labels=labels, threshold=spec.threshold)
        return f"{spec.name}, the model {one_line(spec.model, 300)}: an answer counts as complied if {counts}"
    if isinstance(spec, HttpJudgeSpec):
        counts = _RUBRICS[spec.rubric].format(threshold=spec.threshold)
        caps = [f"{cap} {unit}" for cap, unit in ((spec.max_requests, "requests"), (spec.max_tokens, "tokens")) if cap]
        budget = f", within {' and '.join(caps)}" if caps else ""
        return f"{spec.name}, served by {spec.url}{budget}: an answer counts as complied if {counts}"
    own = f", with {number(len(spec.patterns), 'pattern')} of the policy" if spec.patterns else ""
    return f"{spec.name}{own}: an answer counts as {_JUDGES[spec.name]}"


def _reward(spec: RewardSpec) -> str:
    rule = "for information"
    if spec.max_decrease is not None:
        rule = f"which may fall by at most {spec.max_decrease:g} on average"
    also = ", and those to behaviors for information" if spec.behaviors else ""
    return f"{one_line(spec.model, 300)} scores benign answers before and after, {rule}{also}."
