"""Calibration of the vote: accuracy by vote share, and accuracy by the number of paths."""

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lmsi_jax.voting.majority import validity_weights, vote


@dataclass(frozen=True)
class Bin:
    """The questions whose vote share is in (low, high]."""

    low: float
    high: float
    count: int
    correct: int
    mean_confidence: float

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.count if self.count else None


def accuracy_by_confidence(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Return the bins of the paper's figure 2, of equal width. A vote share of 0 is in the first bin."""
    rows = []
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        inside = [j for j, c in enumerate(confidence) if low < c <= high or (i == 0 and c == 0)]
        mean = sum(confidence[j] for j in inside) / len(inside) if inside else 0.0
        rows.append(Bin(low, high, len(inside), sum(correct[j] for j in inside), mean))
    return rows


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error (Naeini et al. 2015).

    It is the mean over bins, weighted by their counts, of the absolute difference between accuracy and vote share.
    """
    total = sum(b.count for b in bins)
    return sum(abs(b.correct - b.count * b.mean_confidence) for b in bins) / total if total else 0.0


def right_by_paths(
    answers: Sequence[Sequence[str | None]],
    right: Sequence[Collection[str]],
    sizes: Sequence[int],
    draws: int = 32,
    seed: int = 0,
    valid: Sequence[Sequence[bool]] | None = None,
) -> dict[int, list[float]]:
    """Return how often the vote over k paths is right, for each k in `sizes`: {k: a share for each question}.

    `right` has the right answers of each question. With `valid`, one flag per path, valid paths vote first. A share is over
    `draws` random subsets of k stored paths, which is an unbiased estimate of the probability that k fresh paths vote right.
    Questions are independent of each other, so an interval over these shares covers the sampling of questions and of paths.
    From k = m on it is the one vote over all m paths.
    """
    result = {}
    for size in sizes:
        shares = []
        for number, (paths, accepted) in enumerate(zip(answers, right, strict=True)):
            rng, all_paths = random.Random(f"subset {seed} {size} {number}"), range(len(paths))
            subsets = [rng.sample(all_paths, size) for _ in range(draws)] if size < len(paths) else [list(all_paths)]
            voted = [_vote(paths, subset, None if valid is None else valid[number]) for subset in subsets]
            shares.append(sum(answer in accepted for answer in voted) / len(subsets))
        result[size] = shares
    return result


def _vote(answers: Sequence[str | None], subset: Sequence[int], valid: Sequence[bool] | None) -> str | None:
    weights = None if valid is None else validity_weights([valid[path] for path in subset])
    return vote([answers[path] for path in subset], weights=weights).answer


def pass_at_k(right: Sequence[Sequence[bool]], k: int) -> list[float]:
    """Return pass@k of each question: the probability that at least one of k paths is right.

    The estimate is unbiased (Chen et al. 2021, arXiv 2107.03374). At k = 1 it is the share of right paths (mean@m). Raises
    ValueError when a question has fewer than k paths.
    """
    few = min((len(paths) for paths in right), default=k)
    if few < k:
        raise ValueError(f"pass@{k} needs {k} paths of each question, and one has {few}")
    return [pass_at_k_of_counts(len(paths), sum(paths), k) for paths in right]


def pass_at_k_of_counts(paths: int, right: int, k: int) -> float:
    """Return pass@k of a question with `paths` paths of which `right` are right, k of them at most."""
    return 1 - math.comb(paths - right, k) / math.comb(paths, k)
