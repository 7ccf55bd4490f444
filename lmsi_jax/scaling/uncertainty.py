"""What a fit does not know: intervals over runs, the error on the largest run, and whether the points can bear the law."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lmsi_jax.core.errors import UserError
from lmsi_jax.scaling.fitting import DELTA, Fit, fit, refit
from lmsi_jax.scaling.laws import Array, Constants, Index
from lmsi_jax.scaling.points import Points

FEW_DECADES, ONE_RATIO, WIDE = 1.0, 0.98, 10.0


def resampled_runs(runs: Sequence[str], draws: int, seed: int) -> list[Index]:
    """Return indices of points for each draw of the bootstrap: runs with replacement, each with all of its points."""
    names, of_row = np.unique(np.array(runs), return_inverse=True)
    rows = [np.flatnonzero(of_row == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    return [np.concatenate([rows[i] for i in rng.integers(0, len(names), len(names))]) for _ in range(draws)]


def bootstrap(fitted: Fit, points: Points, draws: int, seed: int = 0, delta: float = DELTA) -> list[Fit]:
    """Return the fits to resampled runs, each converged again from the fit to all of them."""
    samples = (points.take(index) for index in resampled_runs(points.runs, draws, seed))
    return [refit(fitted, sample.columns, delta) for sample in samples]


def interval(values: Sequence[float] | Array, level: float = 0.95) -> tuple[float, float]:
    """Return the central percentile interval of the finite values."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    tail = 50 * (1 - level)
    return (float(np.percentile(finite, tail)), float(np.percentile(finite, 100 - tail))) if len(finite) else (-np.inf, np.inf)


def intervals(fits: Sequence[Fit], of: Callable[[Fit], Constants]) -> dict[str, tuple[float, float]]:
    """Return the 95% interval of each number that `of` derives from a fit."""
    rows = [of(each) for each in fits]
    return {name: interval([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True)
class Forecast:
    """How well the points of at most `above` operations predict the others.

    `mean` and `largest` are absolute errors of the loss, as shares of it; `covered` is the share of the `points` inside their
    90% predictive interval, from the bootstrap and the residuals.
    """

    above: float
    points: int
    mean: float
    largest: float
    covered: float


def forecast(fitted: Fit, points: Points, above: float, draws: int, seed: int = 0, delta: float = DELTA) -> Forecast:
    """Fit the points of at most `above` operations and predict the others. Raises UserError if there are none on one side."""
    compute = points.compute
    small, large = points.take(compute <= above), points.take(compute > above)
    if not len(large):
        raise UserError(f"No point has more than {above:g} operations; the most is {compute.max():g}.")
    base = fit(fitted.law, small, delta)
    errors = np.abs(base.predict(large.columns) / large.columns["loss"] - 1)
    residuals = np.log(small.columns["loss"] / base.predict(small.columns))
    rng = np.random.default_rng(seed)
    predicted = [each.predict(large.columns) for each in bootstrap(base, small, draws, seed, delta)]
    drawn = [each * np.exp(rng.choice(residuals, len(large))) for each in predicted]
    low, high = np.nanpercentile(np.array(drawn), [5, 95], axis=0)
    inside = (low <= large.columns["loss"]) & (large.columns["loss"] <= high)
    return Forecast(above, len(large), float(errors.mean()), float(errors.max()), float(inside.mean()))


def largest_left_out(points: Points) -> float:
    """Return the compute above which only the largest run lies."""
    compute, runs = points.compute, np.array(points.runs)
    others = compute[runs != runs[int(np.argmax(compute))]]
    return float(others.max()) if len(others) else float(compute.min())


def warnings(fitted: Fit, points: Points, limits: dict[str, tuple[float, float]]) -> list[str]:
    """Return what makes the fit doubtful, a sentence each: too narrow a range, one ratio, no convergence, free constants."""
    columns, doubts = points.columns, []
    for name in fitted.law.fields:
        decades = float(np.log10(columns[name].max() / columns[name].min()))
        if decades < FEW_DECADES:
            doubts.append(f"{name} spans {decades:.2f} decades; an exponent needs at least {FEW_DECADES:g}.")
    if {"params", "tokens"} <= set(fitted.law.fields):
        together = abs(float(np.corrcoef(np.log(columns["params"]), np.log(columns["tokens"]))[0, 1]))
        if together > ONE_RATIO:
            doubts.append(
                f"params and tokens rise together (correlation {together:.3f}), so their effects cannot be separated; add "
                f"runs of other ratios."
            )
    if fitted.gradient_norm > 1e-6 * max(fitted.objective, 1e-9):
        doubts.append(f"Not converged: gradient norm {fitted.gradient_norm:.1e} at an objective of {fitted.objective:.3e}.")
    for name, value in fitted.constants.items():
        low, high = limits.get(name, (value, value))
        if not (np.isfinite(value) and 1e-300 < abs(value) < 1e300):
            doubts.append(f"{name} is {value:g}, at the boundary of what it can be: the points do not need this term.")
        elif low <= 0 or high / low > WIDE:
            doubts.append(f"The points do not identify {name}: its 95% interval is {low:.3g} to {high:.3g}.")
    return doubts


def outliers(fitted: Fit, points: Points, limit: float = 6.0) -> Index:
    """Return which points lie further from the law than `limit` robust standard deviations (1.4826 x the median deviation)."""
    residuals = np.log(points.columns["loss"] / fitted.predict(points.columns))
    centred = np.abs(residuals - np.median(residuals))
    return centred > limit * max(1.4826 * float(np.median(centred)), 1e-9)
