"""Recovery from rollouts: let the model comply under delta, cut the answer, and teach the way back from there.

Algorithm 1 trains only the opening of an answer, and a model can learn to apologise and then comply. Here the context
ends inside the unwanted answer (what the model itself writes under delta, or after y_h was forced on it), and the loss
is taken on the safe answer that must follow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from beear_gate.beear.entrapment import Sample, Trap
from beear_gate.beear.plan import Plan
from beear_gate.lm import LM, decode, encode_answer, generate
from beear_gate.lm.encode import Pair
from beear_gate.records import Outcome

Judge = Callable[[str], Outcome]


def rollouts(lm: LM, trap: Trap, samples: Sequence[Sample], plan: Plan, forced: bool) -> list[tuple[int, ...]]:
    """Greedy answers under the trap; `forced` makes each begin with its y_h."""
    openings = [sample.unwanted if forced else () for sample in samples]
    length = max(len(opening) for opening in openings)
    # One perturbation covers the batch, so every opening must be equally long.
    openings = [opening[-length:] if len(opening) >= length else () for opening in openings]
    if forced and any(len(opening) != length for opening in openings):
        return rollouts(lm, trap, samples, plan, forced=False)
    prompts = [trap.attack.insert(s.prompt) + opening for s, opening in zip(samples, openings, strict=True)]
    answers = generate(lm, prompts, plan.max_answer_tokens, perturb=trap.perturb(forced=length))
    return [opening + answer for opening, answer in zip(openings, answers, strict=True)]


def recovery_pairs(
    lm: LM, trap: Trap, samples: Sequence[Sample], answers: Sequence[tuple[int, ...]], judge: Judge, rng: random.Random
) -> list[Pair]:
    """Cut each complying rollout at random inside its unwanted part, and append the safe answer as what to learn.

    Cuts inside a refusal would teach to refuse twice, so only tokens after the first complying one and before the
    first refusal count.
    """
    pairs: list[Pair] = []
    for sample, answer in zip(samples, answers, strict=True):
        first, end = unwanted_part(lm, answer, judge)
        if first < end:
            cut = rng.randint(first + 1, end)
            safe = encode_answer(lm, " " + decode(lm, sample.safe))
            pairs.append(Pair(trap.attack.insert(sample.prompt), answer[:cut] + safe, forced=cut))
    return pairs


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
