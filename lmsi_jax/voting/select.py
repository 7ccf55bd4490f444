"""Which paths to train on, once a question is voted."""

import random
from collections.abc import Sequence


def select(
    kept: Sequence[int],
    confidence: float,
    texts: Sequence[str],
    *,
    min_confidence: float = 0.0,
    max_paths: int = 0,
    distinct: bool = False,
) -> list[int]:
    """Which of the paths that agree with the vote: all, as in the paper, unless an option narrows them.

    A question whose confidence is below `min_confidence` keeps none; `distinct` keeps one path of each text (white
    space aside); `max_paths` keeps the first so many.
    """
    if confidence < min_confidence:
        return []
    return narrow(list(kept), texts, max_paths=max_paths, distinct=distinct)


def narrow(kept: list[int], texts: Sequence[str], *, max_paths: int, distinct: bool) -> list[int]:
    """`kept`, without repeated texts if `distinct`, and the first `max_paths` of them (0 = all)."""
    if distinct:
        first = {" ".join(texts[i].split()): i for i in reversed(kept)}
        kept = sorted(first.values())
    return kept[:max_paths] if max_paths else kept


def select_random(answers: Sequence[str | None], count: int, seed: str) -> list[int]:
    """Control without a vote: `count` random paths among those that have an answer, right or wrong."""
    having = [i for i, answer in enumerate(answers) if answer is not None]
    return sorted(random.Random(f"select {seed}").sample(having, min(count, len(having))))
