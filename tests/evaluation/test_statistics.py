import pytest
from scipy import stats

from lmsi_jax.evaluation.statistics import mcnemar, wilson_interval


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
