"""When a question's vote is decided before all its paths are drawn: rules on the answers so far."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence

from lmsi_jax.voting.majority import vote

Decided = Callable[[Sequence[str | None]], bool]


def beta_confidence(first: int, second: int) -> float:
    """How sure it is that the leader beats the runner-up: P(p > 1/2) for p ~ Beta(first + 1, second + 1).

    The rule of Adaptive-Consistency (Aggarwal et al. 2023, arXiv 2305.11860), by the binomial form of the incomplete beta
    function. Example: ``beta_confidence(4, 0)`` is 31/32.
    """
    throws = first + second + 1
    return sum(math.comb(throws, i) for i in range(first + 1)) / 2**throws


def beta_decided(answers: Sequence[str | None], threshold: float = 0.95) -> bool:
    """Is the leader's lead stable? Abstentions (None) say nothing. At 0.95 four of one answer, or six against one, decide."""
    votes = sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)
    return bool(votes) and beta_confidence(votes[0], votes[1] if len(votes) > 1 else 0) >= threshold


def forecast_decided(answers: Sequence[str | None], paths: int, threshold: float = 0.97) -> bool:
    """Will the leader still lead when all `paths` are drawn, with a probability of at least `threshold`?

    Where the Beta rule asks which answer the model prefers in the long run, this asks what the vote of `paths` will say: a
    question that is close to even is decided when few paths are left to change it. The paths to come are forecast from
    those drawn, as leader, runner-up or neither (Dirichlet-multinomial, with half a path of each to begin with).
    """
    votes = sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)
    if not votes:
        return False
    first, second = votes[0], votes[1] if len(votes) > 1 else 0
    return 1 - _overtaken(first, second, len(answers) - first - second, paths - len(answers)) >= threshold


@functools.lru_cache(maxsize=1 << 16)
def _overtaken(first: int, second: int, rest: int, left: int) -> float:
    """The probability that the runner-up ends above the leader after `left` more paths; a tie counts half."""
    if first - second > left:
        return 0.0
    seen = (first + 0.5, second + 0.5, rest + 0.5)
    whole = math.lgamma(sum(seen)) - math.lgamma(sum(seen) + left) + math.lgamma(left + 1)
    total = 0.0
    for more_first in range(left + 1):
        for more_second in range(max(first - second + more_first, 0), left - more_first + 1):
            drawn = (more_first, more_second, left - more_first - more_second)
            log = sum(math.lgamma(s + d) - math.lgamma(s) - math.lgamma(d + 1) for s, d in zip(seen, drawn, strict=True))
            total += math.exp(whole + log) * (1.0 if second + more_second > first + more_first else 0.5)
    return total


def expected_share(first: int, drawn: int, paths: int) -> float:
    """The share of all `paths` that the leader is expected to have when `first` of the `drawn` ones voted for it.

    The same forecast as `forecast_decided`: of the paths to come (first + 1/2) / (drawn + 3/2) are the leader's. Example:
    ``expected_share(4, 4, 32)`` is 0.84, where the share of the drawn paths would be 1.
    """
    return (first + (paths - drawn) * (first + 0.5) / (drawn + 1.5)) / paths


def window_decided(answers: Sequence[str | None], window: int = 5) -> bool:
    """Does a whole window of `window` successive paths agree? (ESC, Li et al. 2024, arXiv 2401.10480)

    Windows do not overlap; a window with an abstention does not agree, and one that is not full yet says nothing.
    """
    full = len(answers) - len(answers) % window
    windows = (set(answers[start : start + window]) for start in range(0, full, window))
    return any(len(said) == 1 and None not in said for said in windows)


def paths_needed(answers: Sequence[str | None], decided: Decided, floor: int = 1) -> int | None:
    """How many of the paths so far, in their order, decide the vote; None when they do not."""
    return next((n for n in range(max(floor, 1), len(answers) + 1) if decided(answers[:n])), None)


def replay(answers: Sequence[Sequence[str | None]], decided: Decided, floor: int = 1) -> tuple[float, float]:
    """(share of paths drawn, share of questions whose answer stays) had a rule stopped the drawing of stored paths."""
    drawn = kept = 0
    for paths in answers:
        first = paths[: paths_needed(paths, decided, floor)]
        drawn += len(first)
        kept += vote(first).answer == vote(paths).answer
    return drawn / max(sum(map(len, answers)), 1), kept / max(len(answers), 1)
