"""Laws of repeated sampling: coverage (pass@k) and the accuracy of the vote over more paths than were sampled."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, expit

from lmsi_jax.core.errors import UserError
from lmsi_jax.scaling.laws import Array
from lmsi_jax.voting.calibration import pass_at_k_of_counts
from lmsi_jax.voting.majority import validity_weights, vote

Counts = Sequence[int] | NDArray[np.int_]


@dataclass(frozen=True)
class BetaCoverage:
    """Questions' chances p of a right path: 0 for a share `never` of the questions, Beta(alpha, beta) for the others.

    Schaeffer et al. 2025 (arXiv 2502.17578): pass@k over questions falls as a power law because of the density of p near 0.
    """

    never: float
    alpha: float
    beta: float

    def at(self, k: int) -> float:
        """Return E[1 - (1 - p)^k]."""
        missed = math.exp(betaln(self.alpha, self.beta + k) - betaln(self.alpha, self.beta))
        return (1 - self.never) * (1 - missed)


def fit_beta_coverage(samples: Counts, correct: Counts) -> BetaCoverage:
    """Return the distribution of greatest likelihood, given the numbers of paths and of right paths of each question."""
    n, c = np.asarray(samples, float), np.asarray(correct, float)
    if len(n) < 4 or not c.any():
        raise UserError(
            f"Coverage needs at least 4 questions with a right path among them; {len(n)} have {int(c.sum())} right paths."
        )

    def cost(theta: Array) -> float:
        never, alpha, beta = expit(theta[0]), *np.exp(np.clip(theta[1:], -12, 12))
        log_some = np.log1p(-never) + betaln(alpha + c, beta + n - c) - betaln(alpha, beta)
        none = np.where(c == 0, np.log(never + 1e-300), -np.inf)
        return -float(np.logaddexp(log_some, none).sum())

    starts = [(never, alpha, beta) for never in (-5.0, -1.0) for alpha in (-0.5, 0.5) for beta in (-0.5, 0.5)]
    options = {"maxiter": 2000, "xatol": 1e-6, "fatol": 1e-9}
    ends = [minimize(cost, start, method="Nelder-Mead", options=options) for start in starts]
    theta = min(ends, key=lambda end: end.fun).x
    return BetaCoverage(float(expit(theta[0])), *(float(value) for value in np.exp(np.clip(theta[1:], -12, 12))))


@dataclass(frozen=True)
class PowerCoverage:
    """pass@k = exp(-a k^-b), the exponentiated power law of Brown et al. 2024 (arXiv 2407.21787)."""

    a: float
    b: float

    def at(self, k: int) -> float:
        return math.exp(-self.a * k**-self.b)


def fit_power_coverage(samples: Counts, correct: Counts) -> PowerCoverage:
    """Fit log(-log pass@k) as a line in log k, to the unbiased pass@k of 1 up to the least number of paths."""
    counts = [(int(n), int(c)) for n, c in zip(samples, correct, strict=True)]
    sizes = np.arange(1, min(64, *(n for n, _ in counts)) + 1)
    covered = np.array([np.mean([pass_at_k_of_counts(n, c, int(k)) for n, c in counts]) for k in sizes])
    inside = (covered > 0) & (covered < 1)
    if inside.sum() < 2:
        raise UserError(f"pass@k is 0 or 1 for all but {int(inside.sum())} values of k: no curve; sample more paths.")
    slope, level = np.polyfit(np.log(sizes[inside]), np.log(-np.log(covered[inside])), 1)
    return PowerCoverage(float(math.exp(level)), float(-slope))


@dataclass(frozen=True)
class Answers:
    """The paths of one question: the answer of each (None if it has none), the right answers, and which paths are valid."""

    answers: tuple[str | None, ...]
    right: frozenset[str]
    valid: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class VoteLaw:
    """How further paths of a question follow from those that it has.

    A further path is right with a chance that is drawn from the posterior of `coverage`, given the paths so far. Otherwise it
    repeats a wrong answer that c of n wrong paths gave with chance (c - discount) / (n + strength), or gives a new one (the
    urn of Pitman and Yor). It is valid with the share of its answer's paths so far, beside one path of the share
    `valid_right` or `valid_wrong`.
    """

    coverage: BetaCoverage
    strength: float
    discount: float
    valid_right: float
    valid_wrong: float

    def extend(self, question: Answers, paths: int, rng: random.Random) -> tuple[list[str | None], list[bool], set[str]]:
        """Return answers, validity and right answers of a question that is extended to `paths` paths."""
        answers, valid = list(question.answers), list(question.valid or [False] * len(question.answers))
        counts: dict[str | None, int] = {}
        accepted: dict[str | None, int] = {}
        for answer, is_valid in zip(answers, valid, strict=True):
            counts[answer] = counts.get(answer, 0) + 1
            accepted[answer] = accepted.get(answer, 0) + is_valid
        wrong = {answer: count for answer, count in counts.items() if answer not in question.right}
        chance = self._chance(len(answers), len(answers) - sum(wrong.values()), rng)
        right = next(iter(sorted(question.right)), "right")
        while right in wrong:  # a name for a right answer that no path gave
            right += "'"
        while len(answers) < paths:
            if is_right := rng.random() < chance:
                chosen: str | None = right
            else:
                chosen = self._wrong(wrong, len(answers), rng)
                wrong[chosen] = wrong.get(chosen, 0) + 1
            count, share = counts.get(chosen, 0), self.valid_right if is_right else self.valid_wrong
            is_valid = rng.random() < (accepted.get(chosen, 0) + share) / (count + 1)
            counts[chosen], accepted[chosen] = count + 1, accepted.get(chosen, 0) + is_valid
            answers.append(chosen)
            valid.append(is_valid)
        return answers, valid, {right, *question.right}

    def _chance(self, paths: int, right: int, rng: random.Random) -> float:
        """Draw a question's chance of a right path from its posterior."""
        law = self.coverage
        if not right:
            some = (1 - law.never) * math.exp(betaln(law.alpha, law.beta + paths) - betaln(law.alpha, law.beta))
            if rng.random() * (law.never + some) < law.never:
                return 0.0
        return rng.betavariate(law.alpha + right, law.beta + paths - right)

    def _wrong(self, wrong: dict[str | None, int], number: int, rng: random.Random) -> str | None:
        place = rng.random() * (sum(wrong.values()) + self.strength)
        for answer, count in wrong.items():
            place -= count - self.discount
            if place < 0:
                return answer
        return f"new {number}"


def fit_vote(questions: Sequence[Answers]) -> VoteLaw:
    """Return the law of greatest likelihood of the answers of all questions. Raises UserError for too few of them."""
    if len(questions) < 4 or min(len(question.answers) for question in questions) < 2:
        raise UserError("The vote over more paths needs at least 4 questions with at least 2 paths each.")
    right = [sum(answer in question.right for answer in question.answers) for question in questions]
    coverage = fit_beta_coverage([len(question.answers) for question in questions], right)
    wrong = [[repr(answer) for answer in question.answers if answer not in question.right] for question in questions]
    counts = [np.unique(each, return_counts=True)[1] for each in wrong if each]

    def cost(theta: Array) -> float:
        strength, discount = math.exp(min(theta[0], 12)), float(expit(theta[1]))
        total = 0.0
        for kinds in counts:
            total += np.log(strength + discount * np.arange(1, len(kinds))).sum()
            total -= np.log(strength + np.arange(1, kinds.sum())).sum()
            total += sum(np.log(np.arange(1, count) - discount).sum() for count in kinds if count > 1)
        return -total

    ends = [minimize(cost, (start, -2.0), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4}) for start in (0.0, 3.0)]
    strength, discount = min(ends, key=lambda end: end.fun).x
    valid: dict[bool, list[bool]] = {True: [], False: []}
    for question in questions:
        for answer, is_valid in zip(question.answers, question.valid or (), strict=False):
            valid[answer in question.right].append(is_valid)
    shares = ((sum(valid[kind]) + 0.5) / (len(valid[kind]) + 1) for kind in (True, False))
    return VoteLaw(coverage, math.exp(min(strength, 12)), float(expit(discount)), *shares)


def vote_accuracy(
    law: VoteLaw, questions: Sequence[Answers], paths: int, *, valid_first: bool = False, draws: int = 8, seed: int = 0
) -> list[float]:
    """Return, for each question, how often the vote is right when the law extends its paths to `paths`."""
    shares = []
    for number, question in enumerate(questions):
        rng, won = random.Random(f"vote {seed} {number}"), 0
        for _ in range(draws):
            answers, valid, accepted = law.extend(question, paths, rng)
            won += vote(answers, weights=validity_weights(valid) if valid_first else None).answer in accepted
        shares.append(won / draws)
    return shares
