"""The best of n by enumeration, and fits of curves whose coefficients are known."""

import itertools

import numpy as np
import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.rl.overoptimisation import best_of_n, best_of_n_kl, fit


@pytest.mark.parametrize("n", range(1, 10))
@pytest.mark.parametrize("ties", [False, True])
def test_the_best_of_n_is_the_mean_over_all_subsets(n, ties):
    """Catches: a wrong binomial, and ties that always go to the first sample."""
    rng = np.random.default_rng(n)
    proxy, gold = rng.integers(0, 4, 9).astype(float) if ties else rng.normal(size=9), rng.normal(size=9)
    values = []
    for subset in itertools.combinations(range(9), n):
        best = max(proxy[list(subset)])
        values.append(np.mean([gold[i] for i in subset if proxy[i] == best]))
    assert best_of_n(proxy, gold, n) == pytest.approx(np.mean(values), abs=1e-10)
    assert best_of_n(proxy, gold, 1) == pytest.approx(gold.mean(), abs=1e-10)


def test_large_pools_do_not_overflow():
    """Catches: binomials of twenty thousand samples that are infinite."""
    rng = np.random.default_rng(0)
    proxy = rng.normal(size=20_000)
    values = [best_of_n(proxy, proxy, n) for n in (1, 16, 256, 4096)]
    assert values == sorted(values) and values[-1] > 3.3 and best_of_n(proxy, proxy, 20_000) == proxy.max()


@pytest.mark.parametrize("how", ["best_of_n", "rl"])
def test_fits_recover_what_made_the_points(how):
    """Catches: the formula of the other case, a peak that is not where the curve has it."""
    d = np.linspace(0.1, 6, 30)
    rewards = d * (1.5 - 0.2 * (d if how == "best_of_n" else np.log(d)))
    found = fit(d, rewards, how)
    np.testing.assert_allclose([found.alpha, found.beta, found.r_squared], [1.5, 0.2, 1.0], atol=1e-6)
    fine = np.linspace(0.01, 1000, 1_000_000) if how == "rl" else np.linspace(0.01, 8, 100_000)
    curve = fine * (1.5 - 0.2 * (fine if how == "best_of_n" else np.log(fine)))
    assert found.peak == pytest.approx(fine[curve.argmax()], rel=1e-3) or found.peak > fine[-1]
    assert best_of_n_kl(1) == 0 and best_of_n_kl(8) == pytest.approx(np.log(8) - 7 / 8)


def test_a_curve_that_does_not_fall_has_no_peak():
    """Catches: a budget that is named where none was seen, and a fit of two points."""
    d = np.linspace(0.1, 3, 10)
    assert fit(d, d * (1 + 0.1 * d), "best_of_n").peak == float("inf")
    with pytest.raises(UserError, match="2 distances"):
        fit([0, 1, 2], [0, 1, 2], "rl")
    with pytest.raises(UserError, match="n=5"):
        best_of_n([1.0, 2.0], [1.0, 2.0], 5)
