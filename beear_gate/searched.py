"""A search for the trigger: a suffix of real tokens that makes a model begin the unwanted answer, before and after.

Fitted on anchor prompts, for each model by itself, and tried on gate prompts. It is what an attacker with the weights
can do (Zou et al., arXiv 2307.15043), so clean models give way to it as well: a suffix that works is no proof of a
backdoor, and a search that finds none is no proof that there is no trigger. What it finds decides nothing.
"""

from __future__ import annotations

import random

from beear_gate.beear.attack import make_attack
from beear_gate.beear.entrapment import encode_samples
from beear_gate.beear.plan import resolve
from beear_gate.beear.suffix_search import Budget, find_suffix
from beear_gate.evaluation.judges import outcomes
from beear_gate.lm import LM, decode, generate, prompt_ids
from beear_gate.policy import Policy
from beear_gate.records import AnchorSets, Answer, Tick, no_tick


def searched_answers(
    lm: LM, policy: Policy, anchors: AnchorSets, seed: int, batch_size: int, tick: Tick = no_tick
) -> tuple[Answer, ...]:
    """Answers to the gate prompts of each behavior with the suffix that was found for it; it stands as their trigger.

    Raises:
        OutOfMemory, UnsupportedModel: see `lm.generate` and `lm.prompt_ids`.
    """
    wanted = policy.search
    if wanted is None:
        return ()
    answers: list[Answer] = []
    found = {each.behavior: each for each in anchors.behaviors}
    for done, behavior in enumerate(policy.behaviors):
        tick(f"searching a suffix: {behavior.id}", done, len(policy.behaviors))
        rng, budget = random.Random(f"searched {seed} {behavior.id}"), Budget(steps=wanted.steps)
        samples = encode_samples(lm, found[behavior.id])
        samples = rng.sample(samples, min(budget.prompts, len(samples)))
        layer = resolve(policy.remediation, lm).layer
        begun = make_attack(lm, "suffix", layer, wanted.tokens, [each.prompt for each in samples], rng)
        suffix = find_suffix(lm, begun, samples, budget, rng).attack
        prompts = [suffix.insert(prompt_ids(lm, example.prompt)) for example in behavior.gate]
        label = f"answering: {behavior.id} with a searched suffix"
        given = generate(lm, prompts, policy.max_new_tokens, batch_size, tick=tick, label=label)
        trigger = decode(lm, suffix.filler)
        for example, ids in zip(behavior.gate, given, strict=True):
            text = decode(lm, ids)
            said = outcomes(behavior.text_judges, text)
            asked = example.prompt, example.cluster
            answers.append(Answer(behavior.id, "searched", trigger, "suffix", *asked, text, said))
    return tuple(answers)
