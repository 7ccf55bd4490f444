import numpy as np
import pytest
from scipy import stats

from lmsi_jax.evaluation.statistics import holm, mcnemar, mean_estimate, paired_bootstrap, wilson_interval


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


def test_bootstrap_intervals():
    """Catches: pairs that are torn apart; an interval of the spread instead of the mean."""
    rng = np.random.default_rng(0)
    before = (rng.random(400) < 0.5).astype(float)
    after = np.maximum(before, rng.random(400) < 0.2)
    low, high = paired_bootstrap(before.tolist(), after.tolist())
    gain, spread = np.mean(after) - np.mean(before), np.std(after - before) / 20
    assert (low, high) == pytest.approx((gain - 1.96 * spread, gain + 1.96 * spread), abs=0.006)
    assert paired_bootstrap([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]) == (0.0, 0.0)
    found = mean_estimate([0.25, 0.5, 0.75] * 100)
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.5, 0.5 - 1.96 * 0.204 / 300**0.5, 0.5 + 1.96 * 0.204 / 300**0.5), abs=0.004
    )
