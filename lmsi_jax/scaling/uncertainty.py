"""What a fit does not know: intervals over runs, the error on the largest run, and whether the points can bear the law."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lmsi_jax.core.errors import UserError
from lmsi_jax.scaling.fitting import DELTA, Fit, fit, interior_starts, refit, vanished
from lmsi_jax.scaling.laws import Array, Constants, Index, Law
from lmsi_jax.scaling.points import Points

FEW_DECADES, ONE_RATIO, WIDE, FEW_RUNS = 1.0, 0.98, 10.0, 10
SAME = 0.05  # runs whose compute differs by less than this share have one budget


def resampled_runs(runs: Sequence[str], draws: int, seed: int) -> list[Index]:
    """Return indices of points for each draw of the bootstrap: runs with replacement, each with all of its points."""
    names, of_row = np.unique(np.array(runs), return_inverse=True)
    rows = [np.flatnonzero(of_row == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    return [np.concatenate([rows[i] for i in rng.integers(0, len(names), len(names))]) for _ in range(draws)]


def bootstrap(fitted: Fit, points: Points, draws: int, seed: int = 0, delta: float = DELTA) -> list[Fit]:
    """Return the fits to resampled runs, each converged again from the fit to all of them.

    Where a term of that fit has vanished, each draw also starts from fits with it. One run alone cannot be resampled: no fits.
    """
    if len(set(points.runs)) < 2:
        return []
    others = interior_starts(fitted.law, points.columns, delta) if vanished(fitted, points.columns) else []
    samples = (points.take(index) for index in resampled_runs(points.runs, draws, seed))
    return [refit(fitted, sample.columns, delta, others) for sample in samples]


def interval(values: Sequence[float] | Array, level: float = 0.95) -> tuple[float, float]:
    """Return the central percentile interval of the values that are numbers, infinities included."""
    numbers = np.asarray(values, float)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return (-np.inf, np.inf)
    tail = 50 * (1 - level)
    return float(np.percentile(numbers, tail, method="lower")), float(np.percentile(numbers, 100 - tail, method="higher"))


def intervals(fits: Sequence[Fit], of: Callable[[Fit], Constants]) -> dict[str, tuple[float, float]]:
    """Return the 95% interval of each number that `of` derives from a fit; none without fits."""
    rows = [of(each) for each in fits]
    return {name: interval([row[name] for row in rows]) for name in (rows[0] if rows else ())}


@dataclass(frozen=True)
class Forecast:
    """How well the points of some runs predict those of the others, which have more compute.

    `above` is the largest compute of the former, `points` the number of the latter. `mean` and `largest` are absolute errors
    of the loss, as shares of it; `covered` is the share of the points inside their 90% predictive interval, from the bootstrap
    and the residuals, or None without a bootstrap.
    """

    above: float
    points: int
    mean: float
    largest: float
    covered: float | None


def largest_runs(points: Points, above: float | None = None) -> Index:
    """Return a mask of the runs that end above this compute; by default those of the largest compute, within 5%.

    Raises UserError when the points have no compute, or when no run, or every one, is above.
    """
    compute = points.compute
    if compute is None:
        raise UserError("The points have neither flops nor params and tokens, so there is no larger run to predict.")
    names, of_row = np.unique(np.array(points.runs), return_inverse=True)
    ends = np.array([compute[of_row == i].max() for i in range(len(names))])
    chosen = ends > (ends.max() * (1 - SAME) if above is None else above)
    if chosen.all() or not chosen.any():
        raise UserError(
            f"{int(chosen.sum())} of {len(names)} runs end above {ends.min() if above is None else above:g} operations; they "
            f"end at {ends.min():g} to {ends.max():g}. A prediction needs runs on both sides."
        )
    return chosen[of_row]


def forecast(law: Law, points: Points, held_out: Index, draws: int, seed: int = 0, delta: float = DELTA) -> Forecast:
    """Fit the points outside the mask `held_out` and predict the others. Raises UserError if they are too few for the law."""
    small, large = points.take(~held_out), points.take(held_out)
    base = fit(law, small, delta)
    errors = np.abs(base.predict(large.columns) / large.columns["loss"] - 1)
    fits, covered = bootstrap(base, small, draws, seed, delta), None
    if fits:
        # The fit follows its own points more closely than others: n / (n - p) restores the variance.
        wider = np.sqrt(len(small) / (len(small) - law.size))
        residuals = wider * np.log(small.columns["loss"] / base.predict(small.columns))
        rng = np.random.default_rng(seed)
        drawn = [each.predict(large.columns) * np.exp(rng.choice(residuals, len(large))) for each in fits]
        low, high = np.nanpercentile(np.array(drawn), [5, 95], axis=0)
        covered = float(((low <= large.columns["loss"]) & (large.columns["loss"] <= high)).mean())
    compute = small.compute
    above = float(compute.max()) if compute is not None else np.nan
    return Forecast(above, len(large), float(errors.mean()), float(errors.max()), covered)


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
    if fitted.gradient_norm > 1e-5 * max(fitted.objective, 1e-9):
        doubts.append(f"Not converged: gradient norm {fitted.gradient_norm:.1e} at an objective of {fitted.objective:.3e}.")
    runs = len(set(points.runs))
    if runs < FEW_RUNS:
        doubts.append(f"The points are of {runs} runs; intervals over so few are too narrow.")
    gone = vanished(fitted, columns)
    if gone:
        names = " and ".join(("params", "tokens", "E")[i] for i in gone)
        doubts.append(f"The term of {names} has vanished: the points do not need it.")
    for name, value in fitted.constants.items():
        low, high = limits.get(name, (value, value))
        if high < 0:
            doubts.append(f"{name} is below 0 ({low:.3g} to {high:.3g}): the loss rises with what should lower it.")
        elif low <= 0 or high / low > WIDE:
            doubts.append(f"The points do not identify {name}: its 95% interval is {low:.3g} to {high:.3g}.")
    return doubts


def outliers(fitted: Fit, points: Points, limit: float = 6.0) -> Index:
    """Return which points lie further from the law than `limit` robust standard deviations (1.4826 x the median deviation).

    Of fewer than four points a constant none is called an outlier, since a fit in the 1-norm passes through some of them.
    """
    n, size = len(points), fitted.law.size
    if n < 4 * size:
        return np.zeros(n, bool)
    residuals = np.log(points.columns["loss"] / fitted.predict(points.columns))
    centred = np.abs(residuals - np.median(residuals))
    return centred > limit * np.sqrt(n / (n - size)) * max(1.4826 * float(np.median(centred)), 1e-9)
