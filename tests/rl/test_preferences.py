"""Losses of pairs and rankings against their formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.rl.preferences import bradley_terry, dpo, ipo, pairs_of_ranking, plackett_luce, scpo


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


def close(ours, expected, inputs, function):
    """The value, and the gradient by central differences."""
    np.testing.assert_allclose(ours(*map(jnp.asarray, inputs)), expected, rtol=1e-10)
    gradient = jax.grad(lambda x: jnp.sum(ours(x, *map(jnp.asarray, inputs[1:]))))(jnp.asarray(inputs[0]))
    steps = np.eye(inputs[0].size).reshape(-1, *inputs[0].shape) * 1e-6
    total = lambda x: function(x, *inputs[1:]).sum()  # noqa: E731
    differences = [(total(inputs[0] + s) - total(inputs[0] - s)) / 2e-6 for s in steps]
    np.testing.assert_allclose(np.ravel(gradient), differences, atol=1e-7)


def test_pairs():
    """Catches: a wrong sign of margin or centring, a length-normalised margin, a smoothing on the wrong side."""
    rng = np.random.default_rng(0)
    a, b, margin = rng.normal(size=(3, 20)) * 3
    for function, formula in (
        (lambda x, y, m: bradley_terry(x, y, m, 0.01), lambda x, y, m: -log_sigmoid(x - y - m) + 0.01 * (x + y) ** 2),
        (lambda x, y, m: dpo(x, 0.3, 0.1), lambda x, y, m: -0.9 * log_sigmoid(0.3 * x) - 0.1 * log_sigmoid(-0.3 * x)),
        (lambda x, y, m: ipo(x, 0.25), lambda x, y, m: (x - 2.0) ** 2),
        (
            lambda x, y, m: scpo(x, jnp.abs(m), y, jnp.abs(m) + 1),
            lambda x, y, m: np.abs(m) * (-log_sigmoid(0.5 * x) - y / (np.abs(m) + 1)),
        ),
    ):
        close(function, formula(a, b, margin), (a, b, margin), formula)


def by_loops(scores, ranks):
    """The mean over the pairs of each ranking; a tie counts half for each side."""
    result = []
    for row, rank in zip(scores, ranks, strict=True):
        total, count = 0.0, 0.0
        for i, j in itertools.combinations(np.flatnonzero(rank), 2):
            if rank[i] == rank[j]:
                total -= 0.5 * (log_sigmoid(row[i] - row[j]) + log_sigmoid(row[j] - row[i]))
            else:
                best, other = (i, j) if rank[i] < rank[j] else (j, i)
                total -= log_sigmoid(row[best] - row[other])
            count += 1
        result.append(total / max(count, 1))
    return np.array(result)


def test_rankings_are_all_their_pairs():
    """Catches: ties that are dropped, answers that are missing, a sum in place of the mean over pairs."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(5, 4))
    ranks = np.array([[1, 2, 3, 4], [2, 1, 2, 0], [1, 1, 1, 1], [1, 0, 0, 0], [3, 1, 2, 1]])
    close(pairs_of_ranking, by_loops(scores, ranks), (scores, ranks), by_loops)
    two = pairs_of_ranking(jnp.asarray(scores[:, :2]), jnp.asarray(np.tile([1, 2], (5, 1))))
    np.testing.assert_allclose(two, bradley_terry(jnp.asarray(scores[:, 0]), jnp.asarray(scores[:, 1])), rtol=1e-12)


def test_plackett_luce_draws_the_best_of_what_is_left():
    """Catches: an order that is reversed, and an answer that is not there in a softmax."""
    rng = np.random.default_rng(2)
    scores, ranks = rng.normal(size=(3, 4)), np.array([[1, 2, 3, 4], [4, 1, 3, 2], [2, 0, 1, 3]])

    def loops(scores, ranks):
        result = []
        for row, rank in zip(scores, ranks, strict=True):
            left, total = sorted(np.flatnonzero(rank), key=lambda i: rank[i]), 0.0
            while left:
                total += np.log(np.exp(row[left]).sum()) - row[left[0]]
                left = left[1:]
            result.append(total)
        return np.array(result)

    close(plackett_luce, loops(scores, ranks), (scores, ranks), loops)
