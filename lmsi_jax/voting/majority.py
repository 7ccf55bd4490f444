"""The majority vote of self-consistency (Wang et al. 2022, arXiv 2203.11171) as LMSI uses it (section 3.1)."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Vote:
    """The outcome of one question's vote. `confidence` is the votes for the winner over all m paths, as in the paper.

    `counts` and `scores` list the best answer first. Without weights the two are equal.
    """

    answer: str | None
    confidence: float
    margin: float  # (votes of the winner - most votes of another answer) / m; below 0 when weights outweigh votes
    entropy: float  # of the votes over answers without abstentions, in nats
    counts: dict[str, int]  # answer -> votes
    scores: dict[str, float]  # answer -> the score that the winner maximises
    num_paths: int
    kept: tuple[int, ...]  # positions of the paths that agree with the winner


def vote(
    answers: Sequence[str | None],
    tie: str = "first",
    seed: str = "",
    weights: Sequence[float] | None = None,
    aggregate: str = "sum",
) -> Vote:
    """Vote over canonical answers. An abstention (None) counts in m and never wins.

    `tie` decides between answers of equal score: "first" chooses the one that was voted for first, "random" chooses by a
    hash of `seed` and the answer, and "abstain" chooses none. With `weights`, one for each path, the answer with the largest
    sum or average (`aggregate`) of its paths' weights wins.

    Example: ``vote(["4", None, "5", "4"])`` gives answer "4", confidence 0.5, margin 0.25, kept (0, 3).
    """
    cast: dict[str, list[float]] = {}
    for answer, weight in zip(answers, weights or [1.0] * len(answers), strict=True):
        if answer is not None:
            cast.setdefault(answer, []).append(weight)
    if aggregate not in ("sum", "average"):
        raise ValueError(f"aggregate={aggregate!r} is not one of 'sum', 'average'")
    scores = {answer: math.fsum(each) / (len(each) if aggregate == "average" else 1) for answer, each in cast.items()}
    scores = dict(sorted(scores.items(), key=lambda item: -item[1]))  # stable: of equal scores the first voted for comes first
    counts = {answer: len(cast[answer]) for answer in scores}
    leaders = [answer for answer, score in scores.items() if score == next(iter(scores.values()))]
    winner = leaders[0] if len(leaders) == 1 else _break_tie(leaders, tie, seed)
    votes = sum(counts.values())
    entropy = sum((n / votes * math.log(votes / n) for n in counts.values()), start=0.0)
    if winner is None:
        return Vote(None, 0.0, 0.0, entropy, counts, scores, len(answers), ())
    kept = tuple(i for i, answer in enumerate(answers) if answer == winner)
    margin = counts[winner] - max((n for answer, n in counts.items() if answer != winner), default=0)
    return Vote(winner, len(kept) / len(answers), margin / len(answers), entropy, counts, scores, len(answers), kept)


def validity_weights(valid: Sequence[bool], invalid_weight: float | None = None) -> list[float]:
    """Return weights by which paths with valid steps vote first, or with `invalid_weight` count more than others.

    By default all invalid paths together weigh less than one valid path: they decide only between answers with equally many
    valid paths, and where no path is valid.
    """
    weight = 1 / (len(valid) + 1) if invalid_weight is None else invalid_weight
    return [1.0 if is_valid else weight for is_valid in valid]


def probabilities(
    logprobs: Sequence[float], num_tokens: Sequence[int], voting: Sequence[bool], *, normalised: bool
) -> list[float]:
    """Return the weights of Wang et al. (2022, table 1): the probability of each path.

    With `normalised` it is the geometric mean of the probabilities of its tokens. `logprobs` are sums over the tokens of a
    path, in nats. A common factor, on which no vote depends, makes the largest weight of the `voting` paths 1, so that long
    paths do not all underflow to 0. A path that abstains has weight 0.
    """
    scaled = [total / max(n, 1) if normalised else total for total, n in zip(logprobs, num_tokens, strict=True)]
    largest = max((value for value, votes in zip(scaled, voting, strict=True) if votes), default=0.0)
    return [math.exp(value - largest) if votes else 0.0 for value, votes in zip(scaled, voting, strict=True)]


def _break_tie(leaders: list[str], tie: str, seed: str) -> str | None:
    if not leaders:
        return None
    if tie == "first":
        return leaders[0]
    if tie == "random":
        return min(leaders, key=lambda answer: hashlib.sha256(f"{seed}\x00{answer}".encode()).digest())
    if tie == "abstain":
        return None
    raise ValueError(f"tie={tie!r} is not one of 'first', 'random', 'abstain'")
