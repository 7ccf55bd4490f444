"""The majority vote of self-consistency (Wang et al. 2022, arXiv 2203.11171) as LMSI uses it (section 3.1)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Vote:
    """The outcome for one question. `confidence` is votes for the winner over all m paths, as in the paper."""

    answer: str | None
    confidence: float
    margin: float  # (votes of the winner - votes of the runner-up) / m
    counts: dict[str, int]  # answer -> votes, most votes first
    num_paths: int
    kept: tuple[int, ...]  # positions of the paths that agree with the winner


def vote(answers: Sequence[str | None], tie: str = "first", seed: str = "") -> Vote:
    """Count canonical answers; None abstains: it counts in m and never wins.

    `tie` says who wins among equals: "first" the answer voted for first, "random" one drawn by a hash of `seed` and
    the answers, "abstain" nobody.

    Example: ``vote(["4", None, "5", "4"])`` gives answer "4", confidence 0.5, margin 0.25, kept (0, 3).
    """
    counts: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
    counts = dict(sorted(counts.items(), key=lambda item: -item[1]))  # stable: first voted for comes first
    if not counts:
        return Vote(None, 0.0, 0.0, {}, len(answers), ())
    votes = list(counts.values())
    leaders = [answer for answer, n in counts.items() if n == votes[0]]
    winner = leaders[0] if len(leaders) == 1 else _break_tie(leaders, tie, seed)
    margin = (votes[0] - (votes[1] if len(votes) > 1 else 0)) / len(answers)
    if winner is None:
        return Vote(None, 0.0, 0.0, counts, len(answers), ())
    kept = tuple(i for i, answer in enumerate(answers) if answer == winner)
    return Vote(winner, votes[0] / len(answers), margin, counts, len(answers), kept)


def _break_tie(leaders: list[str], tie: str, seed: str) -> str | None:
    if tie == "first":
        return leaders[0]
    if tie == "random":
        return min(leaders, key=lambda answer: hashlib.sha256(f"{seed}\x00{answer}".encode()).digest())
    if tie == "abstain":
        return None
    raise ValueError(f"tie={tie!r} is not one of 'first', 'random', 'abstain'")
