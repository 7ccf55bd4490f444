"""Advantages against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.rl.advantages import (
    ESTIMATORS,
    batch_normalised,
    gae,
    grpo,
    path_advantages,
    positives_weighted,
    reinforce,
    remax,
    rloo,
    whiten,
)

GROUPS = [name for name in ESTIMATORS if name != "reinforce"]


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("paths", [2, 6, 10, 64])
@pytest.mark.parametrize("reward", [0.1, 0.3, 0.7, 0.9, -0.7, 1e9])
def test_equal_rewards_have_no_advantage(name, paths, reward):
    """Catches: rounding that a division by a tiny deviation blows up to a gradient (ten times 0.7 in float32 gave 0.93)."""
    for dtype in (np.float32, np.float64):
        advantages = ESTIMATORS[name](np.full((3, paths), reward, dtype))
        assert advantages.dtype == np.float64 and not advantages.any()


@given(st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_estimators_are_their_definitions(rewards):
    """Catches: the wrong mean, deviation or degrees of freedom; a reward that loses its fraction."""
    rewards = np.array(rewards)
    others = [[np.mean(np.delete(group, i)) for i in range(4)] for group in rewards]
    np.testing.assert_allclose(rloo(rewards), rewards - others, atol=1e-12)
    centred = ESTIMATORS["dr_grpo"](rewards)
    np.testing.assert_allclose(centred, rewards - rewards.mean(axis=1, keepdims=True), atol=1e-12)
    np.testing.assert_allclose(grpo(rewards), centred / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4), atol=1e-9)
    deviation = np.sqrt((centred**2).sum() / (centred.size - 1))
    np.testing.assert_allclose(batch_normalised(rewards), centred / (deviation + 1e-4), atol=1e-9)
    assert (reinforce(rewards, 0.5) == rewards - 0.5).all()
    assert (remax(rewards, rewards[:, 0]) == rewards - rewards[:, :1]).all()


def test_a_group_of_one_path_has_nothing_to_compare():
    """Catches: a raw reward that passes through as an advantage, or a division by zero."""
    for name in GROUPS:
        with pytest.raises(UserError, match="compares the paths of a question"):
            ESTIMATORS[name](np.ones((4, 1)))


def test_a_dissenter_is_not_blown_up_without_a_deviation():
    """Catches: an estimator that swaps names; the published figures of a group in which 31 of 32 agree."""
    group = np.array([[1.0] * 31 + [0.0]])
    assert abs(grpo(group)[0, -1] + 5.5) < 0.1 and abs(ESTIMATORS["dr_grpo"](group)[0, -1] + 0.97) < 0.01


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [1.0, 0.95, 0.0])
def test_gae_is_the_sum_of_its_differences(gamma, lam):
    """Catches: a value that leaks from padding, returns after whitening, an integer reward array (0.7 became 0)."""
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 3, 6))
    lengths = (6, 4, 1)
    mask = np.array([[t < n for t in range(6)] for n in lengths])
    values[~mask], rewards[~mask] = 99.0, 99.0
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for row, n in enumerate(lengths):
        v = [*values[row, :n], 0.0]
        deltas = [rewards[row, t] + gamma * v[t + 1] - v[t] for t in range(n)]
        expected = [sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)]
        np.testing.assert_allclose(advantages[row, :n], expected, rtol=1e-12)
        np.testing.assert_allclose(returns[row, :n], np.array(expected) + v[:n], rtol=1e-12)
        assert not advantages[row, n:].any() and not returns[row, n:].any()
    last = np.zeros((1, 3), np.int64)
    assert gae(last + np.array([[0, 0, 0.7]]), np.zeros((1, 3)), np.ones((1, 3)))[0][0, 2] == 0.7


def test_the_advantages_of_paths_are_those_of_their_tokens():
    """Catches: a score before the last token, a penalty that counts twice, whitening over paths that are not trained."""
    rng = np.random.default_rng(3)
    lengths, scores, trained = (3, 1, 5), rng.normal(size=3).tolist(), (True, False, True)
    values, penalties = ([rng.normal(size=n) for n in lengths] for _ in range(2))
    advantages, returns = path_advantages(scores, values, penalties, trained, gamma=0.9, lam=0.8)
    expected, totals = [], []
    for value, penalty, score in zip(values, penalties, scores, strict=True):
        rewards = -penalty
        rewards[-1] += score
        deltas = rewards + 0.9 * np.append(value[1:], 0.0) - value
        sums = [sum(0.72**k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]
        expected.append(np.array(sums))
        totals.append(np.array(sums) + value)
    of_trained = np.concatenate([expected[0], expected[2]])
    for i in range(3):
        np.testing.assert_allclose(returns[i], totals[i], rtol=1e-12)
        whitened = (expected[i] - of_trained.mean()) / np.sqrt(of_trained.var(ddof=1) + 1e-8)
        np.testing.assert_allclose(advantages[i], whitened if trained[i] else 0.0, rtol=1e-10)


def test_whitening_is_over_the_mask():
    """Catches: padding in the mean of a batch."""
    rng = np.random.default_rng(1)
    values, mask = rng.normal(size=(3, 5)), rng.random((3, 5)) < 0.6
    whitened = whiten(values, mask)
    np.testing.assert_allclose([whitened[mask].mean(), whitened[mask].var(ddof=1)], [0, 1], atol=1e-6)
    assert not whitened[~mask].any() and not whiten(np.full((2, 2), 0.7), np.ones((2, 2))).any()
    assert (positives_weighted(np.array([2.0, -2.0, 0.0]), 0.1) == [0.2, -2.0, 0.0]).all()
