"""Intervals and paired tests over questions."""

import math
from collections.abc import Sequence


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
