"""A bandit whose best policy is known: with a divergence of weight beta it is p_ref exp(r / beta) / Z."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmsi_jax.rl.advantages import ESTIMATORS, reinforce, rloo
from lmsi_jax.rl.divergence import estimate
from lmsi_jax.rl.losses import LOSSES, aggregate
from lmsi_jax.rl.preferences import dpo

ARMS, BETA = 6, 0.5
REFERENCE = jax.nn.log_softmax(jnp.array([0.5, 0.0, -0.5, 1.0, 0.2, -1.0]))
REWARDS = np.array([1.0, 0.0, 0.7, 0.2, 0.9, 0.4])
BEST = np.asarray(jax.nn.softmax(REFERENCE + REWARDS / BETA))


def total_variation(logits):
    return 0.5 * float(np.abs(np.asarray(jax.nn.softmax(logits)) - BEST).sum())


def learn(advantage, loss, estimator, steps=300, groups=128, paths=16):
    """A policy after stochastic gradient steps, with a learning rate that falls to zero, averaged over the last half."""
    rng = np.random.default_rng(0)
    optimiser = optax.adam(optax.linear_schedule(0.05, 0.001, steps))
    logits, mean = REFERENCE, jnp.zeros(ARMS)
    state = optimiser.init(logits)
    segments = np.ones((groups * paths, 1), np.int32)

    @jax.jit
    def gradient(logits, arms, advantages):
        def objective(logits):
            logprobs = jax.nn.log_softmax(logits)[arms][:, None]
            old, one = jax.lax.stop_gradient(logprobs), jnp.ones_like(arms)[:, None]
            losses = LOSSES[loss](logprobs, old, advantages[:, None], one)
            if estimator:
                losses += BETA * estimate(logprobs, REFERENCE[arms][:, None], estimator)
            return aggregate(losses, segments, "token", 1)

        return jax.grad(objective)(logits)

    for step in range(steps):
        probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
        arms = rng.choice(ARMS, size=(groups, paths), p=probabilities / probabilities.sum())
        advantages = jnp.asarray(ESTIMATORS[advantage](REWARDS[arms]).ravel(), jnp.float32)
        update, state = optimiser.update(gradient(logits, jnp.asarray(arms.ravel()), advantages), state)
        logits = optax.apply_updates(logits, update)
        mean = mean + logits / (steps // 2) if step >= steps - steps // 2 else mean
    return mean


@pytest.mark.parametrize(
    ("advantage", "loss"), [("reinforce", "reinforce"), ("rloo", "reinforce"), ("rloo", "ppo"), ("dr_grpo", "cispo")]
)
def test_policies_reach_the_closed_form(advantage, loss):
    """Catches: an advantage, loss or divergence whose fixed point is another policy."""
    scale = 15 / 16 if advantage == "dr_grpo" else 1.0  # the mean of a group contains the path: a known factor
    logits = learn(advantage, loss, "k2")
    if scale == 1.0:
        assert total_variation(logits) <= 0.02
    else:
        best = jax.nn.softmax(REFERENCE + scale * REWARDS / BETA)
        assert 0.5 * float(jnp.abs(jax.nn.softmax(logits) - best).sum()) <= 0.02


def test_k1_in_the_loss_is_no_divergence():
    """Catches: a coefficient that seems to work because something else holds the policy."""
    without, wrong = learn("rloo", "ppo", None), learn("rloo", "ppo", "k1")
    assert total_variation(wrong) > 0.3 and abs(total_variation(wrong) - total_variation(without)) < 0.1


def test_dpo_reaches_the_closed_form():
    """Catches: a margin of the wrong sign, or a beta that is not that of the divergence."""
    wins = jax.nn.sigmoid(jnp.asarray(REWARDS[:, None] - REWARDS[None, :]))
    weight = jnp.exp(REFERENCE[:, None] + REFERENCE[None, :]) * wins

    def objective(logits):
        ratio = jax.nn.log_softmax(logits) - REFERENCE
        margins = ratio[:, None] - ratio[None, :]
        return jnp.sum(weight * dpo(margins.ravel(), BETA).reshape(margins.shape))

    optimiser, logits = optax.adam(0.05), REFERENCE
    state, gradient = optimiser.init(logits), jax.jit(jax.grad(objective))
    for _ in range(500):
        update, state = optimiser.update(gradient(logits), state)
        logits = optax.apply_updates(logits, update)
    assert total_variation(logits) <= 0.02


def test_rloo_has_less_variance_than_reinforce():
    """Catches: a baseline that adds noise. Of equal samples, the variance of the gradient is at most a half."""
    rng = np.random.default_rng(0)
    probabilities = np.asarray(jax.nn.softmax(REFERENCE), np.float64)
    scores = np.eye(ARMS) - probabilities  # d log p / d logits of each arm
    found = {"reinforce": [], "rloo": []}
    for _ in range(400):
        arms = rng.choice(ARMS, size=(8, 16), p=probabilities / probabilities.sum())
        for name, estimator in (("reinforce", reinforce), ("rloo", rloo)):
            found[name].append((estimator(REWARDS[arms])[..., None] * scores[arms]).mean(axis=(0, 1)))
    variance = {name: np.var(values, axis=0).sum() for name, values in found.items()}
    assert variance["rloo"] <= 0.5 * variance["reinforce"]
    np.testing.assert_allclose(np.mean(found["rloo"], axis=0), np.mean(found["reinforce"], axis=0), atol=0.01)
