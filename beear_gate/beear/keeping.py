"""What removal is to leave as it was: answers to benign requests, and refusals that no trigger calls off.

Restoring draws towards answers, so D_SA is read without a trap beside it. Without that, one repaired model in ten
answered its trigger when it had been trained on (docs/results/removal-log.md, 2026-11-30).
"""

from __future__ import annotations

from statistics import fmean

from beear_gate.beear.distillation import Likeliest, remember
from beear_gate.beear.entrapment import Encoded
from beear_gate.beear.selection import Select
from beear_gate.lm import LM
from beear_gate.lm.encode import Pair


def refusals(encoded: Encoded, select: Select) -> list[Pair]:
    """D_SA of all behaviors as it is read without a trap, as far as it refuses."""
    samples = [sample for found in encoded.samples.values() for sample in found]
    return [Pair(sample.prompt, sample.safe) for sample in samples if select.refuses(sample.safe)]


def earlier(lm: LM, encoded: Encoded, select: Select) -> dict[Pair, Likeliest]:
    """What the model says of answers that are not to be learned but to stay as they are, where safe answers refuse.

    Where the unwanted thing shows in answers to ordinary requests (a URL, a tone), a model that lets it slip now and
    then would learn from itself to go on: there all of D_PA is learned. So are, of refusals, those that the model would
    not begin by itself.
    """
    for samples in encoded.samples.values():
        # More than half, because some refusals are in words that no judge knows.
        if fmean(select.refuses(sample.safe) for sample in samples) < 0.5:
            return {}
    said = remember(lm, refusals(encoded, select))
    own = {pair: each for pair, each in said.items() if int(each.ids_AT[0, 0]) == pair.answer[0]}
    return remember(lm, encoded.useful_parts[0]) | own
