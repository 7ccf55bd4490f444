"""Confidence intervals and paired tests over questions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 2**18  # random weights drawn at a time


def wilson_interval(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95% score interval of a share (Wilson 1927), which is sound for small n and near 0 or 1."""
    if total == 0:
        return (0.0, 1.0)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return (max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Return the exact two-sided p-value of the difference between two scores of the same questions (McNemar 1947).

    Only the n questions that changed count. Under the null hypothesis the number that got better is binomial(n, 1/2).
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
    """Return a share of questions with Wilson's interval."""
    return Estimate(correct / total, *wilson_interval(correct, total))


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values from 0 to 1, one a question, with the interval of `mean_interval`."""
    low, high = mean_interval(values, 0.0, 1.0)
    return Estimate(float(np.mean(values)), low, high)


def gain_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of the mean gain of questions that have a score from 0 to 1 before and after."""
    return mean_interval([b - a for a, b in zip(before, after, strict=True)], -1.0, 1.0)


def mean_interval(values: Sequence[float], least: float, most: float, draws: int = 10_000) -> tuple[float, float]:
    """Return the 95% interval of the mean of independent values from `least` to `most` (Gaffke 2005).

    The limits are quantiles of `draws` weighted means. The random weights, uniform over the simplex, are on the values and on
    one extra value: `least` for the lower limit, `most` for the upper one. For zeros and ones this is the interval of Clopper
    and Pearson, and for many values it is close to that of the bootstrap. Unlike the latter, it is not too short when all
    values are equal, or when few differ (Phan, Thomas and Learned-Miller 2021, arXiv 2106.03163). Raises ValueError when a
    value is outside the range, and when there is none.
    """
    distinct, counts = np.unique(np.asarray(values, float), return_counts=True)
    if not (len(distinct) and least <= distinct[0] and distinct[-1] <= most):
        raise ValueError(f"an interval needs values from {least:g} to {most:g}; these are {values!r:.80}")
    rng, lows, highs = np.random.default_rng(0), [], []
    rows = CHUNK // len(distinct) + 1
    for start in range(0, draws, rows):
        # The weights are gammas divided by their sum. Equal values share one gamma, whose shape is their count.
        weights = rng.standard_gamma(counts, (min(rows, draws - start), len(distinct)))
        extra = rng.standard_exponential(len(weights))
        total = weights.sum(axis=1) + extra
        lows.append(least + weights @ (distinct - least) / total)
        highs.append(most - weights @ (most - distinct) / total)
    return float(np.percentile(np.concatenate(lows), 2.5)), float(np.percentile(np.concatenate(highs), 97.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for several tests, so that the family-wise error rate stays below the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class SeedsEstimate(Estimate):
    """A mean over seeds and questions, with its 95% interval and the two-sided p-value of a mean of 0."""

    p_value: float


def seeds_estimate(
    scores: Sequence[Sequence[float]], least: float, most: float, *, same_questions: bool = False
) -> SeedsEstimate:
    """Return the mean over seeds of mean scores, with an interval over questions and seeds.

    `scores` has a list of values from `least` to `most` for each seed, one a question. If each seed has its own questions, the
    variance between the seeds' means contains that of the questions, and the interval is Student's with one degree of freedom
    less than seeds. If all have the `same_questions`, in the same order, the variance of the questions' means is added. With
    one seed the interval is over questions only, and the p-value is that of the sign test, which for paired rights and wrongs
    is McNemar's.
    """
    from scipy import stats  # takes half a second to import, and only studies need it

    means, k = np.array([np.mean(values) for values in scores]), len(scores)
    mean, flat = float(np.mean(means)), [value for values in scores for value in values]
    better, worse = sum(value > 0 for value in flat), sum(value < 0 for value in flat)
    if k == 1 or len(set(flat)) == 1:
        sign = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
        return SeedsEstimate(mean, *mean_interval(flat, least, most), sign)
    of_seeds = float(np.var(means, ddof=1)) / k
    of_questions = float(np.var(np.mean(np.array(scores), axis=0))) / len(scores[0]) if same_questions else 0.0
    error = math.sqrt(of_seeds + of_questions)
    if not error:
        return SeedsEstimate(mean, mean, mean, 0.0 if mean else 1.0)
    half = math.hypot(stats.t.ppf(0.975, k - 1) * math.sqrt(of_seeds), 1.959964 * math.sqrt(of_questions))
    p_value = float(2 * stats.t.sf(abs(mean) / error, k - 1))
    return SeedsEstimate(mean, max(least, mean - half), min(most, mean + half), p_value)
