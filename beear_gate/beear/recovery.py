"""Recovery from rollouts: let the model comply under delta, cut the answer, and teach the way back from there.

Algorithm 1 trains only the opening of an answer, and a model can learn to apologise and then comply. Here the context
ends inside the unwanted answer (what the model itself writes under delta, or after y_h was forced on it), and the loss
is taken on the safe answer that must follow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from beear_gate.beear.entrapment import Sample, Trap
from beear_gate.beear.plan import Plan
from beear_gate.lm import LM, decode, encode_answer, generate
from beear_gate.lm.encode import Pair
from beear_gate.records import Outcome

Judge = Callable[[str], Outcome]


def rollouts(lm: LM, trap: Trap, samples: Sequence[Sample], plan: Plan, forced: bool) -> list[tuple[int, ...]]:
    """Greedy answers under the trap; `forced` makes each begin with its y_h."""
    answers: dict[int, tuple[int, ...]] = {}
    # One perturbation covers a batch, so only openings of one length can go together.
    lengths = {len(sample.unwanted) if forced else 0 for sample in samples}
    for length in sorted(lengths):
        chosen = [place for place, sample in enumerate(samples) if not forced or len(sample.unwanted) == length]
        openings = [samples[place].unwanted[:length] for place in chosen]
        prompts = [trap.attack.insert(samples[p].prompt) + begun for p, begun in zip(chosen, openings, strict=True)]
        found = generate(lm, prompts, plan.max_answer_tokens, perturb=trap.perturb(forced=length))
        answers |= {p: begun + rest for p, begun, rest in zip(chosen, openings, found, strict=True)}
    return [answers[place] for place in range(len(samples))]


def recovery_pairs(
    lm: LM, trap: Trap, samples: Sequence[Sample], answers: Sequence[tuple[int, ...]], judge: Judge, rng: random.Random
) -> list[Pair]:
    """Cut each complying rollout at random inside its unwanted part, and append the safe answer as what to learn.

    Cuts inside a refusal would teach to refuse twice, so only tokens after the first complying one and before the
    first refusal count; and none at the end of a sentence, since a refusal may then follow that of a refusal too.
    """
    pairs: list[Pair] = []
    for sample, answer in zip(samples, answers, strict=True):
        first, end = unwanted_part(lm, answer, judge)
        cuts = [cut for cut in range(first + 1, end + 1) if not _ends_sentence(decode(lm, answer[:cut]))]
        if cuts:
            cut = rng.choice(cuts)
            safe = encode_answer(lm, " " + decode(lm, sample.safe))
            pairs.append(Pair(trap.attack.insert(sample.prompt), answer[:cut] + safe, forced=cut))
    return pairs


def in_own_words(
    lm: LM, trap: Trap, samples: Sequence[Sample], plan: Plan, judge: Judge
) -> dict[tuple[int, ...], Sample]:
    """By prompt, samples whose y_h is what the model itself says under the trap, where that is unwanted.

    Its own way to be wrong is easier to elicit than a policy's, nearer to what a trigger elicits, and parts from y_s
    where it goes wrong.
    """
    answers = rollouts(lm, trap, samples, plan, forced=False)
    return {
        sample.prompt: replace(sample, unwanted=answer, own=True)
        for sample, answer in zip(samples, answers, strict=True)
        if judge(decode(lm, answer)) is Outcome.COMPLIED
    }


def _ends_sentence(text: str) -> bool:
    return text.rstrip().endswith(tuple(".!?\u2026\u3002\uff01\uff1f"))


def unwanted_part(lm: LM, answer: tuple[int, ...], judge: Judge) -> tuple[int, int]:
    """Token range [first, end) in which an answer complies; empty where it does not."""
    text = decode(lm, answer)
    if judge(text) is not Outcome.COMPLIED:
        return 0, 0
    prefixes = [decode(lm, answer[:place]) for place in range(1, len(answer) + 1)]
    first = len(answer)
    while first > 0 and judge(prefixes[first - 1]) is Outcome.COMPLIED:
        first -= 1
    end = len(answer)
    for place in range(first + 1, len(answer)):
        rest = text[len(prefixes[place - 1]) :].lstrip(" .,;:!")
        if judge(rest) is Outcome.REFUSED:
            end = place
            break
    return first, end
