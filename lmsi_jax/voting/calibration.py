"""How far a vote can be trusted: accuracy by vote share, and accuracy against the number of paths."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.voting.majority import vote


@dataclass(frozen=True)
class Bin:
    """Questions whose vote share lies in (low, high]."""

    low: float
    high: float
    count: int
    correct: int
    mean_confidence: float

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.count if self.count else None


def accuracy_by_confidence(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> list[Bin]:
    """The paper's figure 2. The first bin takes 0 as well."""
    rows = []
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        inside = [j for j, c in enumerate(confidence) if low < c <= high or (i == 0 and c == 0)]
        mean = sum(confidence[j] for j in inside) / len(inside) if inside else 0.0
        rows.append(Bin(low, high, len(inside), sum(correct[j] for j in inside), mean))
    return rows


def accuracy_by_paths(
    answers: Sequence[Sequence[str | None]], gold: Sequence[str], sizes: Sequence[int], draws: int = 32, seed: int = 0
) -> dict[int, float]:
    """Accuracy of the vote over k paths, for each k of `sizes`.

    An unbiased estimate from the stored paths: the mean over `draws` random subsets of size k of every question. At
    k = m it is the vote over all paths, in their order.
    """
    result = {}
    for size in sizes:
        hits = total = 0
        for number, (paths, right) in enumerate(zip(answers, gold, strict=True)):
            rng = random.Random(f"subset {seed} {size} {number}")
            subsets = [rng.sample(list(paths), size) for _ in range(draws)] if size < len(paths) else [paths]
            hits += sum(vote(subset).answer == right for subset in subsets)
            total += len(subsets)
        result[size] = hits / total if total else 0.0
    return result
