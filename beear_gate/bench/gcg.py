"""BEEAR's input-space baseline (arXiv 2406.17092, Table 4): remove against a suffix of real tokens, not against delta.

The suffix is universal, as delta is, and is found by `beear.suffix_search`. The defender has to guess the length of the
trigger, and that it stands at the end.

Scaled down from BEEAR's run (256 candidates, top-k 256, 22.7 GPU-hours for a 7B model): see `Budget`.
"""

from __future__ import annotations

from beear_gate.beear.attack import make_attack
from beear_gate.beear.entrapment import encode_samples
from beear_gate.beear.removal import Term
from beear_gate.beear.suffix_search import Budget, find_suffix
from beear_gate.bench.job import Job
from beear_gate.bench.training import begin, draw, useful_pairs
from beear_gate.lm.encode import Pair

BUDGET = Budget()


def gcg(job: Job, n_tokens: int = 3, budget: Budget = BUDGET) -> None:
    """The rounds of `paper` mode with a fresh suffix in place of a fresh delta: D_SA read after it, D_PA without.

    Args:
        n_tokens: length of the suffix; BEEAR's Table 4 gives the search the length of the true trigger.
    """
    plan, trainer, rng = begin(job)
    useful = useful_pairs(job)
    behaviors = [encode_samples(job.lm, each) for each in job.anchors.behaviors]
    for number in range(1, plan.rounds + 1):
        terms = [Term(draw(rng, useful, plan.useful_samples), None, plan.batch_size)]
        for done, samples in enumerate(behaviors):
            job.tick(f"round {number}: searching a suffix", done, len(behaviors))
            searched = draw(rng, samples, budget.prompts)
            attack = make_attack(job.lm, "suffix", plan.layer, n_tokens, [each.prompt for each in searched], rng)
            suffix = find_suffix(job.lm, attack, searched, budget, rng).attack
            drawn = draw(rng, samples, plan.safe_samples)
            safe = [Pair(suffix.insert(sample.prompt), sample.safe) for sample in drawn]
            terms.append(Term(safe, None, plan.batch_size))
        for step in range(plan.outer_steps):
            job.tick(f"round {number}: removal", step, plan.outer_steps)
            trainer.step(terms, rng)
