"""Coverage and votes beyond the paths that were sampled."""

import random

import numpy as np
import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.scaling import samples
from lmsi_jax.scaling.samples import Answers
from lmsi_jax.voting.majority import validity_weights, vote


def questions(count, paths, seed=0):
    """Questions as of a small model: right with p from a Beta, 10% never; wrong answers near the right one; valid if right."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        p = 0.0 if rng.random() < 0.1 else rng.betavariate(0.8, 1.1)
        answers = ["0" if rng.random() < p else str(rng.choice((-1, 1)) * int(1 + rng.expovariate(0.15))) for _ in range(paths)]
        valid = [rng.random() < (0.97 if answer == "0" else 0.05) for answer in answers]
        found.append((answers, valid))
    return found


def first(rows, paths):
    return [Answers(tuple(a[:paths]), frozenset({"0"} & set(a[:paths])), tuple(v[:paths])) for a, v in rows]


def right(rows, paths, valid_first=False):
    """The share of questions whose vote over the first paths is right."""
    weights = lambda v: validity_weights(v[:paths]) if valid_first else None  # noqa: E731
    return np.mean([vote(a[:paths], weights=weights(v)).answer == "0" for a, v in rows])


def test_coverage_of_more_paths():
    """Catches: shares of right paths taken for chances, which predict far too little."""
    rows = questions(1500, 32)
    of = lambda k: [sum(answer == "0" for answer in a[:k]) for a, _ in rows]  # noqa: E731
    truth = np.mean([count > 0 for count in of(32)])
    beta = samples.fit_beta_coverage([8] * 1500, of(8))
    assert abs(beta.at(32) - truth) < 0.025 < truth - np.mean([1 - (1 - c / 8) ** 32 for c in of(8)])
    assert abs(samples.fit_power_coverage([8] * 1500, of(8)).at(32) - truth) < 0.06
    assert beta.at(1) == pytest.approx(np.mean(of(8)) / 8, abs=0.01) and 0.03 < beta.never < 0.17


@pytest.mark.parametrize("valid_first", [False, True])
def test_votes_of_more_paths(valid_first):
    """Catches: wrong answers that win because they came twice, further paths that ignore those before."""
    rows = questions(600, 32)
    known = first(rows, 8)
    law = samples.fit_vote(known)
    assert np.mean(samples.vote_accuracy(law, known, 8, valid_first=valid_first, draws=1)) == right(rows, 8, valid_first)
    told = np.mean(samples.vote_accuracy(law, known, 32, valid_first=valid_first, draws=4))
    assert abs(told - right(rows, 32, valid_first)) < 0.03 < right(rows, 32, valid_first) - right(rows, 8, valid_first)


def test_too_little_is_an_error():
    """Catches: a likelihood without a maximum."""
    with pytest.raises(UserError, match="at least 4 questions with a right path"):
        samples.fit_beta_coverage([4] * 10, [0] * 10)
    with pytest.raises(UserError, match="pass@k is 0 or 1"):
        samples.fit_power_coverage([4] * 10, [4] * 10)
    with pytest.raises(UserError, match="at least 2 paths"):
        samples.fit_vote([Answers(("1",), frozenset("1"))] * 9)
