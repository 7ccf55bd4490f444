"""Adaptive stopping: rules that decide from the answers so far whether a question needs more paths."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmsi_jax.voting.majority import vote


@dataclass(frozen=True)
class StoppingOptions:
    """Options of the stopping rules."""

    floor: int = 4  # minimum number of paths per question
    threshold: float = 0.97  # forecast, beta: required probability that the leader wins
    window: int = 5  # window: number of successive paths that must agree


Decided = Callable[[Sequence[str | None]], bool]


def beta_confidence(first: int, second: int) -> float:
    """Return the probability that the leader beats the runner-up: P(p > 1/2) for p ~ Beta(first + 1, second + 1).

    `first` and `second` are their votes. This is the rule of Adaptive-Consistency (Aggarwal et al. 2023, arXiv 2305.11860),
    in the binomial form of the incomplete beta function. Example: ``beta_confidence(4, 0)`` is 31/32.
    """
    trials = first + second + 1
    return sum(math.comb(trials, i) for i in range(first + 1)) / 2**trials


def beta_decided(answers: Sequence[str | None], threshold: float = 0.95) -> bool:
    """Return whether `beta_confidence` of the two most frequent answers is at least `threshold`.

    Abstentions (None) are ignored. At 0.95, four votes to none or six votes to one decide.
    """
    votes = sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)
    return bool(votes) and beta_confidence(votes[0], votes[1] if len(votes) > 1 else 0) >= threshold


def forecast_decided(answers: Sequence[str | None], paths: int, threshold: float = 0.97) -> bool:
    """Return whether the leader still leads after all `paths` with a probability of at least `threshold`.

    The beta rule asks which answer the model prefers in the long run. This rule asks for the result of the vote over `paths`
    paths: an almost even vote is decided when few paths are left to change it. The remaining paths are forecast from the
    answers so far as leader, runner-up or neither (Dirichlet-multinomial with a prior of half a path each).
    """
    votes = sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)
    if not votes:
        return False
    first, second = votes[0], votes[1] if len(votes) > 1 else 0
    return 1 - _overtaken(first, second, len(answers) - first - second, paths - len(answers)) >= threshold


@functools.lru_cache(maxsize=1 << 16)
def _overtaken(first: int, second: int, rest: int, left: int) -> float:
    """Return the probability that the runner-up ends above the leader after `left` more paths. A tie counts half."""
    if first - second > left:
        return 0.0
    seen = (first + 0.5, second + 0.5, rest + 0.5)
    constant = math.lgamma(sum(seen)) - math.lgamma(sum(seen) + left) + math.lgamma(left + 1)
    total = 0.0
    for more_first in range(left + 1):
        for more_second in range(max(first - second + more_first, 0), left - more_first + 1):
            drawn = (more_first, more_second, left - more_first - more_second)
            log = sum(math.lgamma(s + d) - math.lgamma(s) - math.lgamma(d + 1) for s, d in zip(seen, drawn, strict=True))
            total += math.exp(constant + log) * (1.0 if second + more_second > first + more_first else 0.5)
    return total


def expected_share(first: int, drawn: int, paths: int) -> float:
    """Return the leader's expected share of all `paths`, when `first` of the `drawn` paths so far voted for it.

    The forecast is that of `forecast_decided`: each remaining path votes for the leader with the probability
    (first + 1/2) / (drawn + 3/2). Example: ``expected_share(4, 4, 32)`` is 0.84, while the share so far is 1.
    """
    return (first + (paths - drawn) * (first + 0.5) / (drawn + 1.5)) / paths


def expected_margin(lead: int, drawn: int, paths: int) -> float:
    """Return the expected margin among all `paths`, when the leader is `lead` votes ahead after `drawn` paths.

    It is the difference of the two answers' `expected_share`, and so never above that of the leader.
    """
    return lead * (1 + (paths - drawn) / (drawn + 1.5)) / paths


def window_decided(answers: Sequence[str | None], window: int = 5) -> bool:
    """Return whether all answers in a window of `window` successive paths agree (ESC, Li et al. 2024, arXiv 2401.10480).

    Windows do not overlap. A window with an abstention does not agree, and an incomplete window is ignored.
    """
    full = len(answers) - len(answers) % window
    windows = (set(answers[start : start + window]) for start in range(0, full, window))
    return any(len(answers) == 1 and None not in answers for answers in windows)


# Stopping rules by name: (options, number of planned paths) -> (answers so far -> whether the vote is decided).
RULES: dict[str, Callable[[StoppingOptions, int], Decided]] = {
    "forecast": lambda options, paths: lambda answers: forecast_decided(answers, paths, options.threshold),
    "beta": lambda options, paths: lambda answers: beta_decided(answers, options.threshold),
    "window": lambda options, paths: lambda answers: window_decided(answers, options.window),
}


def paths_needed(answers: Sequence[str | None], decided: Decided, floor: int = 1) -> int | None:
    """Return how many of the paths so far, in order and at least `floor`, decide the vote; None when they do not decide it."""
    return next((n for n in range(max(floor, 1), len(answers) + 1) if decided(answers[:n])), None)


def simulate_stopping(answers: Sequence[Sequence[str | None]], decided: Decided, floor: int = 1) -> tuple[float, float]:
    """Return the shares of paths sampled and of answers unchanged if a rule had stopped the sampling of the stored paths."""
    drawn = kept = 0
    for paths in answers:
        first = paths[: paths_needed(paths, decided, floor)]
        drawn += len(first)
        kept += vote(first).answer == vote(paths).answer
    return drawn / max(sum(map(len, answers)), 1), kept / max(len(answers), 1)
