"""Intervals and paired tests over questions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def mean_estimate(values: Sequence[float], draws: int = 2000, seed: int = 0) -> Estimate:
    """A mean with the interval of the percentile bootstrap over questions."""
    data = np.asarray(values, float)
    means = _resampled(data, draws, seed)
    return Estimate(float(data.mean()), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5)))


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The 95% interval of the mean gain, over questions that are drawn again with both of their scores (Koehn 2004)."""
    gains = np.asarray(after, float) - np.asarray(before, float)
    means = _resampled(gains, draws, seed)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def _resampled(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[draws]: means over questions drawn with replacement."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(values, len(values)).mean() for _ in range(draws)])


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that the chance of any false finding stays below the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
