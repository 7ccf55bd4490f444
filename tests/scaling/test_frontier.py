"""The frontier from curves and from runs of equal compute."""

import numpy as np
import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.scaling.allocation import optimal
from lmsi_jax.scaling.frontier import envelope, exponent_intervals, isoflop
from lmsi_jax.scaling.laws import LAWS
from lmsi_jax.scaling.points import Points
from lmsi_jax.scaling.published import PUBLISHED
from lmsi_jax.scaling.records import fit_record

LAW = PUBLISHED["besiroglu_2024"]
EXPONENTS = LAWS["chinchilla_parametric"].exponents(LAW.theta)


def points(rows, noise=0.0, runs=None):
    params, tokens = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"params": params, "tokens": tokens, "flops": 6 * params * tokens}
    loss = LAW.predict(columns) * np.exp(noise * np.random.default_rng(0).standard_normal(len(params)))
    return Points({**columns, "loss": loss}, tuple(runs or map(str, range(len(params)))))


def budgets():
    ratios = np.geomspace(0.25, 4, 9)
    best = {flops: optimal(LAW, flops).params for flops in np.geomspace(6e18, 3e21, 9)}
    return [(size * ratio, flops / (6 * size * ratio)) for flops, size in best.items() for ratio in ratios]


def curves():
    rows = [(n, d, str(i)) for i, n in enumerate(np.geomspace(1e7, 1e10, 30)) for d in np.geomspace(1e8, 1e12, 80)]
    return points([row[:2] for row in rows], runs=[row[2] for row in rows])


def test_isoflop_parabolas_give_the_exponents():
    """Catches: a vertex of the wrong sign, tokens fitted to the optimal parameters' compute."""
    found = isoflop(points(budgets()))
    assert (found.params.exponent, found.tokens.exponent) == pytest.approx(EXPONENTS, abs=1e-3)
    assert found.params.at(1e21) == pytest.approx(optimal(LAW, 1e21).params, rel=0.01) and not found.refused
    limits, failed = exponent_intervals(points(budgets(), noise=0.002), "isoflop", 50)
    low, high = limits["a"]
    assert low < EXPONENTS[0] < high and high - low < 0.1 and failed == 0


@pytest.mark.parametrize(
    ("every", "told"), [(2, "of 40 resampled data sets show no frontier"), (3, "No resampled data set shows a")]
)
def test_draws_without_a_frontier_are_counted(every, told, tmp_path):
    """Catches: intervals from the few draws that happened to show a frontier, without a word about the others."""
    rows = [row for row in budgets() if 6 * row[0] * row[1] < 2e19][::every]  # two budgets
    some = points(rows, noise=0.01).columns
    write_jsonl(tmp_path / "rows.jsonl", [{name: float(some[name][i]) for name in some} for i in range(len(rows))])
    record = fit_record("chinchilla_isoflop", f"{tmp_path}/rows.jsonl", "total", 40)
    assert any(told in text for text in record["warnings"])
    assert ("low" in record["exponents"]["a"]) == (every == 2)


def test_budgets_without_a_minimum_are_refused_by_name():
    """Catches: the vertex of a parabola far outside the runs, or of one that opens downwards."""
    rows = [row for row in budgets() if 6 * row[0] * row[1] > 1e19] + [(size, 6e18 / (6 * size)) for size in (1e6, 2e6, 4e6)]
    found = isoflop(points(rows))
    assert len(found.refused) == 1 and found.refused[0].startswith("6e+18 operations (3 runs): the minimum lies outside")
    two = points([(1e8, 1e10), (2e8, 5e9)])
    with pytest.raises(UserError, match="two budgets with a minimum inside; there are 0. 6e\\+18 .* 2 sizes do not determine"):
        isoflop(two)


def test_a_budget_is_as_wide_as_it_says():
    """Catches: budgets that are chained, each near the next, into one."""
    rows = [(size, flops / (6 * size)) for flops in 1e20 * 1.039 ** np.arange(12) for size in (1e8, 1e9, 1e10)]
    assert len(isoflop(points(rows)).optima) == 6


def test_the_envelope_gives_the_exponents():
    """Catches: sizes that are the best only since no larger one was trained."""
    found = envelope(curves())
    assert (found.params.exponent, found.tokens.exponent) == pytest.approx(EXPONENTS, abs=5e-3)


def test_an_envelope_needs_curves():
    """Catches: a frontier from final losses, each of which is its own curve."""
    with pytest.raises(UserError, match="there are 0 runs with several points"):
        envelope(points(budgets()))
