"""Intervals and tests, exact where there is an exact one; scipy does the numerics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm


def upper_bound(hits: int, n: int, confidence: float) -> float:
    """Exact one-sided upper bound of a rate (Clopper and Pearson 1934): 0 hits of 299 gives 0.01 at 0.95."""
    return float(binomtest(hits, n, alternative="less").proportion_ci(confidence, method="exact").high)


def lower_bound(hits: int, n: int, confidence: float) -> float:
    """Exact one-sided lower bound of a rate (Clopper and Pearson 1934)."""
    return float(binomtest(hits, n, alternative="greater").proportion_ci(confidence, method="exact").low)


def wilson(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Two-sided score interval of a rate (Wilson 1927), for display."""
    interval = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def needed_n(max_rate: float, confidence: float, hits: int = 0) -> int:
    """Smallest n at which `hits` hits prove a rate below `max_rate`: 299 for none, 473 for one at 1 % and 95 %."""
    n = max(hits + 1, math.ceil(math.log(1 - confidence) / math.log(1 - max_rate)))
    while binom.cdf(hits, n, max_rate) > 1 - confidence:
        n += 1
    return n


def needed_pairs(margin: float, confidence: float, discordance: float, power: float = 0.8) -> int:
    """Pairs with which an unchanged model is shown to be within a margin with that power: 690 for 3 points at 10 %.

    The normal approximation for a paired difference (Nam 1997; the variance under no difference is the discordance),
    and at least what the exact bound of a rate with no hit takes: 299 for 1 point, even if no pair ever differs.

    Args:
        margin: largest difference of two paired rates that counts as none.
        discordance: expected share of pairs that change at all, for the better or the worse.
    """
    z = float(norm.ppf(confidence)) + float(norm.ppf(power))
    return max(needed_n(margin, confidence), math.ceil(z * z * discordance / (margin * margin)))


def cohen_kappa(
    both: int, only_first: int, only_second: int, neither: int, seed: int = 0, draws: int = 4000
) -> tuple[float | None, float | None, float | None]:
    """Cohen's kappa of two raters with two values (Cohen 1960), with a two-sided 95 % bootstrap interval.

    Args:
        both, only_first, only_second, neither: how often both, one, or none of them said yes.

    Returns:
        (kappa, low, high); None where chance alone agrees always.
    """
    counts = np.array([both, only_first, only_second, neither], dtype=float)
    n = counts.sum()
    if not n or math.isnan(estimate := float(_kappas(counts[None])[0])):
        return None, None, None
    drawn = np.random.default_rng(seed).multinomial(int(n), counts / n, size=draws)
    kappas = _kappas(drawn.astype(float))
    low, high = np.nanquantile(kappas, [0.025, 0.975])
    return estimate, float(low), float(high)


def _kappas(counts_D4: NDArray[np.float64]) -> NDArray[np.float64]:
    both, first, second, neither = counts_D4.T
    n = counts_D4.sum(-1)
    one, other = (both + first) / n, (both + second) / n
    chance = one * other + (1 - one) * (1 - other)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, ((both + neither) / n - chance) / (1 - chance), np.nan)


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p of a paired before/after change, from the discordant pairs alone (McNemar 1947)."""
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def paired_difference(worse: int, better: int, n: int, confidence: float) -> tuple[float, float, float]:
    """Difference of two paired rates, (worse - better) / n, with one-sided score bounds (Tango 1998).

    With no discordant pair at all the score bound is closer than the data allow, so the exact bound of a rate with no
    hit is taken where that is wider.

    Args:
        worse, better: pairs that changed for the worse and for the better.

    Returns:
        (estimate, lower bound, upper bound), each bound at `confidence`.
    """
    estimate = (worse - better) / n
    least = upper_bound(0, n, confidence) if worse == better == 0 else -1.0
    high = max(_tango_upper(worse, better, n, confidence), least)
    low = -max(_tango_upper(better, worse, n, confidence), least)
    return estimate, low, high


def _tango_upper(worse: int, better: int, n: int, confidence: float) -> float:
    z = float(norm.ppf(confidence))

    def score(delta: float) -> float:
        """Tango's statistic for H0: difference = delta, plus z; positive below the bound."""
        a = 2 * n
        b = -worse - better + (2 * n - worse + better) * delta
        c = -better * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * q + delta * (1 - delta))
        distance = worse - better - n * delta
        return z + (distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance or 1.0))

    start, end = (worse - better) / n, 1 - 1e-12
    return float(brentq(score, start, end)) if start < end and score(end) < 0 else 1.0


def bootstrap_ratio(
    changes: Sequence[float], clusters: Sequence[int], confidence: float, seed: int = 0, draws: int = 4000
) -> tuple[float, float, float]:
    """exp of a mean paired change of log-likelihoods, with one-sided bounds by a bootstrap over clusters.

    Args:
        changes: NLL after minus NLL before of each prompt, in nats a token.
        clusters: near-duplicate prompts share a number and are drawn together.
    """
    estimate, low, high = bootstrap_mean(changes, clusters, confidence, seed, draws)
    return math.exp(estimate), math.exp(low), math.exp(high)


def bootstrap_mean(
    changes: Sequence[float], clusters: Sequence[int], confidence: float, seed: int = 0, draws: int = 4000
) -> tuple[float, float, float]:
    """Mean of paired changes with one-sided percentile bounds by a bootstrap over clusters (Efron 1979)."""
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(member, weights=np.asarray(changes, dtype=float))
    sizes = np.bincount(member)
    picked = np.random.default_rng(seed).integers(0, len(sums), size=(draws, len(sums)))
    means = sums[picked].sum(axis=1) / sizes[picked].sum(axis=1)
    low, high = np.quantile(means, [1 - confidence, confidence])
    return float(np.mean(changes)), float(low), float(high)
