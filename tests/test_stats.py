"""evaluation.stats: bounds checked against exact sums, scipy, and computations of another kind."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, binom, binomtest, norm

from beear_gate.evaluation.stats import (
    bootstrap_mean,
    bootstrap_ratio,
    lower_bound,
    mcnemar,
    needed_n,
    needed_pairs,
    paired_difference,
    upper_bound,
    wilson,
)

# --- Clopper and Pearson


def test_no_hit_of_299_shows_one_percent_and_of_298_does_not() -> None:
    assert upper_bound(0, 299, 0.95) <= 0.01 < upper_bound(0, 298, 0.95)


def test_one_hit_of_473_shows_one_percent_and_of_472_does_not() -> None:
    assert upper_bound(1, 473, 0.95) <= 0.01 < upper_bound(1, 472, 0.95)


@pytest.mark.parametrize(("hits", "n"), [(1, 20), (7, 300), (19, 20)])
def test_both_bounds_are_quantiles_of_beta_distributions(hits: int, n: int) -> None:
    assert upper_bound(hits, n, 0.95) == pytest.approx(beta.ppf(0.95, hits + 1, n - hits), rel=1e-9)
    assert lower_bound(hits, n, 0.95) == pytest.approx(beta.ppf(0.05, hits, n - hits + 1), rel=1e-9)


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
def test_the_upper_bound_covers_the_rate_at_least_as_often_as_it_says(rate: float, n: int) -> None:
    covered = 1.0
    for hits in range(n + 1):  # the bound grows with the hits, so only the lowest ones miss
        if upper_bound(hits, n, 0.95) >= rate:
            break
        covered -= float(binom.pmf(hits, n, rate))
    assert covered >= 0.95


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
def test_the_lower_bound_covers_the_rate_at_least_as_often_as_it_says(rate: float, n: int) -> None:
    missed = next(hits for hits in range(n + 1) if lower_bound(hits, n, 0.95) > rate)  # the lowest that misses
    assert float(binom.cdf(missed - 1, n, rate)) >= 0.95


def test_all_hits_leave_no_room_above_and_no_hit_none_below() -> None:
    assert upper_bound(10, 10, 0.95) == 1.0
    assert lower_bound(0, 10, 0.95) == 0.0


@pytest.mark.parametrize(("hits", "n"), [(0, 299), (1, 473), (2, 628)])
def test_needed_n_is_the_least_that_shows_one_percent(hits: int, n: int) -> None:
    assert needed_n(0.01, 0.95, hits) == n
    assert upper_bound(hits, n, 0.95) <= 0.01 < upper_bound(hits, n - 1, 0.95)


# --- Wilson, McNemar


@pytest.mark.parametrize(("hits", "n"), [(0, 30), (3, 30), (30, 30)])
def test_wilson_is_where_the_score_test_ends(hits: int, n: int) -> None:
    z = norm.ppf(0.975)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    assert wilson(hits, n, 0.95) == pytest.approx((max(0.0, middle - half), min(1.0, middle + half)), abs=1e-12)


@pytest.mark.parametrize(("lost", "gained"), [(0, 6), (3, 9), (5, 5)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(lost: int, gained: int) -> None:
    assert mcnemar(lost, gained) == pytest.approx(binomtest(lost, lost + gained, 0.5).pvalue)


@pytest.mark.parametrize(("lost", "gained"), [(0, 6), (1, 9), (20, 11)])
def test_mcnemar_is_the_sum_of_what_is_as_unlikely(lost: int, gained: int) -> None:
    n = lost + gained
    chances = [math.comb(n, k) / 2**n for k in range(n + 1)]
    assert mcnemar(lost, gained) == pytest.approx(sum(p for p in chances if p <= chances[lost] * (1 + 1e-9)))
    assert mcnemar(lost, gained) == pytest.approx(mcnemar(gained, lost))


def test_six_pairs_one_way_are_the_fewest_that_mcnemar_calls_significant() -> None:
    assert mcnemar(6, 0) < 0.05 < mcnemar(5, 0)


def test_mcnemar_without_a_discordant_pair_sees_no_change() -> None:
    assert mcnemar(0, 0) == 1.0


# --- Tango's bound of a paired difference


def _score(worse: int, better: int, n: int, delta: float) -> float:
    """Tango's statistic with the likelihood maximized numerically instead of by its closed form."""

    def loss(q: float) -> float:
        """q: probability of a change for the better; q + delta of one for the worse."""
        cells = ((worse, q + delta), (better, q), (n - worse - better, 1 - 2 * q - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x)
    return float((worse - better - n * delta) / math.sqrt(n * (2 * q + delta - delta * delta)))


@pytest.mark.parametrize(("worse", "better", "n"), [(7, 1, 21), (3, 2, 50), (1, 0, 44), (0, 4, 60), (12, 30, 300)])
def test_at_the_bound_the_score_is_the_quantile_of_the_confidence(worse: int, better: int, n: int) -> None:
    _, low, high = paired_difference(worse, better, n, 0.95)
    assert _score(worse, better, n, high) == pytest.approx(-norm.ppf(0.95), abs=1e-3)
    assert _score(worse, better, n, low) == pytest.approx(norm.ppf(0.95), abs=1e-3)


def test_tangos_interval_of_a_published_example() -> None:
    """Bentur et al. 2009 as in Fagerland, Lydersen and Laake 2014: 7 and 1 of 21 pairs, 95 % from 0.026 to 0.517."""
    estimate, low, high = paired_difference(7, 1, 21, 0.975)
    assert (estimate, round(low, 3), round(high, 3)) == (6 / 21, 0.026, 0.517)


def test_more_pairs_for_the_worse_raise_the_bound() -> None:
    bounds = [paired_difference(worse, 2, 100, 0.95)[2] for worse in range(40)]
    assert all(lower < higher for lower, higher in pairwise(bounds))


def test_more_pairs_for_the_better_lower_the_bound_once_they_outweigh() -> None:
    bounds = [paired_difference(2, better, 100, 0.95)[2] for better in range(4, 40)]
    assert all(lower > higher for lower, higher in pairwise(bounds))


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (3, 8), (10, 10)])
def test_swapping_better_and_worse_mirrors_the_interval(worse: int, better: int) -> None:
    estimate, low, high = paired_difference(worse, better, 60, 0.95)
    assert paired_difference(better, worse, 60, 0.95) == pytest.approx((-estimate, -high, -low), abs=1e-9)


def test_without_a_discordant_pair_the_bound_is_that_of_no_hit() -> None:
    assert paired_difference(0, 0, 100, 0.95) == (0.0, -upper_bound(0, 100, 0.95), upper_bound(0, 100, 0.95))


@pytest.mark.parametrize(("worse", "better"), [(20, 0), (0, 20), (10, 10)])
def test_the_interval_stays_within_what_a_difference_can_be(worse: int, better: int) -> None:
    estimate, low, high = paired_difference(worse, better, 20, 0.95)
    assert -1 <= low <= estimate <= high <= 1


def test_the_bound_covers_the_difference_close_to_as_often_as_it_says() -> None:
    """Every table of 40 pairs, summed exactly; a score bound is not exact, and dips a little below its confidence."""
    n = 40
    high = {(w, b): paired_difference(w, b, n, 0.95)[2] for w in range(n + 1) for b in range(n + 1 - w)}
    logs = [math.lgamma(count + 1) for count in range(n + 1)]
    for p_worse, p_better in [(0.02, 0.02), (0.05, 0.02), (0.05, 0.05), (0.1, 0.05), (0.2, 0.1), (0.3, 0.3)]:
        rest = 1 - p_worse - p_better
        covered = sum(
            math.exp(
                logs[n] - logs[w] - logs[b] - logs[n - w - b]
                + w * math.log(p_worse) + b * math.log(p_better) + (n - w - b) * math.log(rest)
            )
            for (w, b), bound in high.items()
            if bound >= p_worse - p_better
        )  # fmt: skip
        assert covered >= 0.93, (p_worse, p_better, covered)


def test_the_planner_states_what_a_margin_takes() -> None:
    assert needed_pairs(0.01, 0.95, 0.0) == 299
    assert needed_pairs(0.03, 0.95, 0.1) == 687
    assert needed_pairs(0.03, 0.95, 0.1, power=0.9) > needed_pairs(0.03, 0.95, 0.1) > needed_pairs(0.05, 0.95, 0.1)


def _share_that_passes(worse: float, better: float, margin: float) -> float:
    """How many of 5,000 studies of 400 pairs show a difference to be within the margin."""
    drawn = np.random.default_rng(0).multinomial(400, [worse, better, 1 - worse - better], size=5000)
    tables, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    shown = [paired_difference(int(w), int(b), 400, 0.95)[2] <= margin for w, b in tables]
    return float(counts[shown].sum() / 5000)


def test_a_loss_as_large_as_the_margin_rarely_passes_and_an_unchanged_model_mostly_does() -> None:
    assert _share_that_passes(0.075, 0.025, 0.05) <= 0.06
    assert _share_that_passes(0.05, 0.05, 0.05) >= 0.9


def test_the_planned_number_of_pairs_has_the_power_that_it_promises() -> None:
    n = needed_pairs(0.05, 0.95, 0.1)
    drawn = np.random.default_rng(1).multinomial(n, [0.05, 0.05, 0.9], size=2000)
    tables, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
    shown = [paired_difference(int(w), int(b), n, 0.95)[2] <= 0.05 for w, b in tables]
    assert counts[shown].sum() / 2000 == pytest.approx(0.8, abs=0.04)


# --- bootstrap over clusters


def _changes() -> list[float]:
    return list(np.random.default_rng(1).normal(0.02, 0.1, size=80))


def test_the_bootstrap_gives_the_same_figures_each_time() -> None:
    changes, clusters = _changes(), list(range(80))
    assert bootstrap_mean(changes, clusters, 0.95) == bootstrap_mean(changes, clusters, 0.95)
    assert bootstrap_mean(changes, clusters, 0.95, seed=1) != bootstrap_mean(changes, clusters, 0.95, seed=2)


def test_the_bootstrap_is_near_the_normal_interval_of_many_prompts() -> None:
    changes = _changes()
    error = float(np.std(changes)) / math.sqrt(len(changes)) * float(norm.ppf(0.95))
    estimate, low, high = bootstrap_mean(changes, list(range(80)), 0.95)
    assert estimate == pytest.approx(np.mean(changes))
    assert (high - estimate, estimate - low) == pytest.approx((error, error), rel=0.1)


def test_copies_of_a_prompt_in_one_cluster_do_not_narrow_the_interval() -> None:
    changes = _changes()
    single = bootstrap_mean(changes, list(range(80)), 0.95)
    copied = [change for change in changes for _ in range(5)]
    clustered = bootstrap_mean(copied, [number // 5 for number in range(400)], 0.95)
    assert clustered == pytest.approx(single, abs=1e-9)
    assert bootstrap_mean(copied, list(range(400)), 0.95)[2] < single[2]


def test_one_cluster_alone_has_no_spread() -> None:
    assert bootstrap_mean([0.1, 0.3], [7, 7], 0.95) == pytest.approx((0.2, 0.2, 0.2))


def test_the_ratio_is_the_exponential_of_the_mean_and_of_its_bounds() -> None:
    changes, clusters = _changes(), list(range(80))
    expected = tuple(math.exp(figure) for figure in bootstrap_mean(changes, clusters, 0.9))
    assert bootstrap_ratio(changes, clusters, 0.9) == pytest.approx(expected)
