import numpy as np
import pytest
from scipy import stats

from lmsi_jax.evaluation.statistics import gain_interval, holm, mcnemar, mean_estimate, wilson_interval


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (3, 10), (250, 500), (500, 500)])
def test_wilson_interval(correct, total):
    """Catches: a slip in the formula."""
    wanted = stats.binomtest(correct, total).proportion_ci(method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 5), (12, 3), (1, 9), (80, 20)])
def test_mcnemar_is_the_binomial_test_of_the_changed(better, worse):
    """Catches: counting questions that did not change, or a one-sided p-value."""
    before = [False] * better + [True] * worse + [True] * 7 + [False] * 4
    after = [True] * better + [False] * worse + [True] * 7 + [False] * 4
    wanted = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(before, after) == pytest.approx(wanted)


def test_holm():
    """Catches: Bonferroni, or adjusted values that are not in the order of the p-values."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def bootstrap(values, draws=4000):
    """The percentile bootstrap, which covers well in the middle of the range and for many questions."""
    rng, data = np.random.default_rng(0), np.asarray(values)
    means = rng.choice(data, (draws, len(data))).mean(axis=1)
    return np.percentile(means, 2.5), np.percentile(means, 97.5)


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("p", [0.01, 0.05, 0.5, 0.95, 0.99])
def test_intervals_of_zeros_and_ones_cover(n, p):
    """Catches: an interval near 0 or 1 that misses the mean too often. The coverage is exact: a sum over all counts."""
    found = [mean_estimate([1.0] * right + [0.0] * (n - right)) for right in range(n + 1)]
    covered = sum(stats.binom.pmf(right, n, p) for right in range(n + 1) if found[right].low <= p <= found[right].high)
    assert covered >= 0.93
    exact = stats.binomtest(1, n).proportion_ci(method="exact")
    assert (found[1].low, found[1].high) == pytest.approx((exact.low, exact.high), abs=0.01), "Clopper and Pearson's"


@pytest.mark.parametrize("n", [5, 20, 100])
def test_intervals_of_shares_near_one_cover(n):
    """Catches: too short an interval where nearly all F1 scores are close to 1 and a few are 0."""
    rng, repeats = np.random.default_rng(n), 150
    scores = np.where(rng.random((repeats, n)) < 0.05, 0.0, 1 - 0.1 * rng.random((repeats, n)))
    found = [mean_estimate(row) for row in scores.tolist()]
    assert np.mean([each.low <= 0.95 * 0.95 <= each.high for each in found]) >= 0.93


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize(("worse", "same", "better"), [(0, 0, 1), (0, 0.05, 0.95), (0.02, 0.03, 0.95), (0.05, 0.9, 0.05)])
def test_intervals_of_gains_cover(n, worse, same, better):
    """Catches: an interval of a gain that is too short where all, or nearly all, questions improve."""
    rng, repeats = np.random.default_rng(n), 300
    after = rng.choice([-1.0, 0.0, 1.0], (repeats, n), p=[worse, same, better])
    found = [gain_interval([0.0] * n, row) for row in after.tolist()]
    assert np.mean([low <= better - worse <= high for low, high in found]) >= 0.93


@pytest.mark.parametrize("n", [1, 5, 20, 500])
def test_equal_values_do_not_make_an_interval_of_width_zero(n):
    """Catches: certainty that comes from a sample without spread."""
    for value in (0.0, 0.5, 1.0):
        found = mean_estimate([value] * n)
        assert found.low <= found.value <= found.high and found.high - found.low > 1 / (n + 1)
    assert mean_estimate([1.0] * n).high == 1 and mean_estimate([0.0] * n).low == 0
    for gain in (-1.0, 0.0, 1.0):
        low, high = gain_interval([0.0] * n, [gain] * n)
        assert low <= gain <= high and high - low > 1 / (n + 1)


def test_intervals_of_many_values_are_those_of_the_bootstrap():
    """Catches: pairs that are torn apart; an interval of the spread in place of the mean, or one that is needlessly wide."""
    rng = np.random.default_rng(0)
    before = (rng.random(500) < 0.5).astype(float).tolist()
    after = np.where(rng.random(500) < 0.3, rng.random(500) < 0.9, before).astype(float).tolist()
    scores = rng.beta(2, 1, 500).tolist()
    found = mean_estimate(scores)
    for (low, high), values in ((gain_interval(before, after), np.subtract(after, before)), ((found.low, found.high), scores)):
        wanted = bootstrap(values)
        assert high - low == pytest.approx(wanted[1] - wanted[0], rel=0.1)
        assert (low, high) == pytest.approx(wanted, abs=0.006)
    assert gain_interval(before, after) == gain_interval(before, after), "no two runs differ"


@pytest.mark.parametrize("values", [[0.5, 1.2], [-0.1], [0.5, float("nan")], []])
def test_values_outside_the_range_are_refused(values):
    """Catches: percentages, or NaN, which would give an interval that holds for nothing."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        mean_estimate(values)
