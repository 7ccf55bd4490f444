"""Intervals and paired tests over questions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 2**18  # random weights that are drawn at a time


def wilson_interval(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927): sound for small n and near 0 or 1."""
    if total == 0:
        return (0.0, 1.0)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return (max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided p-value that two scores of the same questions differ (McNemar 1947, binomial form).

    Only the questions that changed speak: of n of them, the number that got better is binomial(n, 1/2) under the
    null hypothesis.
    """
    better = sum(b and not a for a, b in zip(before, after, strict=True))
    worse = sum(a and not b for a, b in zip(before, after, strict=True))
    changed = better + worse
    tail = sum(math.comb(changed, i) for i in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**changed)


@dataclass(frozen=True)
class Estimate:
    """A mean over questions, with its 95% interval."""

    value: float
    low: float
    high: float


def share_estimate(correct: int, total: int) -> Estimate:
    """A share of questions, with Wilson's interval."""
    return Estimate(correct / total, *wilson_interval(correct, total))


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value from 0 to 1 a question, with the interval of `mean_interval`."""
    low, high = mean_interval(values, 0.0, 1.0)
    return Estimate(float(np.mean(values)), low, high)


def gain_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the mean gain, where each question has a score from 0 to 1 before and one after."""
    return mean_interval([b - a for a, b in zip(before, after, strict=True)], -1.0, 1.0)


def mean_interval(values: Sequence[float], least: float, most: float, draws: int = 10_000) -> tuple[float, float]:
    """The 95% interval of the mean of independent values that lie from `least` to `most` (Gaffke 2005).

    The limits are quantiles of means in which random weights, uniform over the simplex, stand on the values and on one
    more: on `least` for the lower limit, on `most` for the upper one. For zeros and ones this is the interval of Clopper
    and Pearson, and for many values nearly that of the bootstrap; but values that are all equal, or of which few differ,
    do not make it too short (Phan, Thomas and Learned-Miller 2021, arXiv 2106.03163). Raises ValueError for a value
    outside the range, and where there is none.
    """
    distinct, counts = np.unique(np.asarray(values, float), return_counts=True)
    if not (len(distinct) and least <= distinct[0] and distinct[-1] <= most):
        raise ValueError(f"an interval needs values from {least:g} to {most:g}; these are {values!r:.80}")
    rng, lows, highs = np.random.default_rng(0), [], []
    rows = CHUNK // len(distinct) + 1
    for start in range(0, draws, rows):
        # Weights are gammas over their sum; equal values share one, whose shape is their number.
        weights = rng.standard_gamma(counts, (min(rows, draws - start), len(distinct)))
        extra = rng.standard_exponential(len(weights))
        total = weights.sum(axis=1) + extra
        lows.append(least + weights @ (distinct - least) / total)
        highs.append(most - weights @ (most - distinct) / total)
    return float(np.percentile(np.concatenate(lows), 2.5)), float(np.percentile(np.concatenate(highs), 97.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that the chance of any false finding stays below the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
