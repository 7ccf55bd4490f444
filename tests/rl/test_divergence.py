"""The estimators of the divergence by enumeration over a vocabulary: their expected gradients tell which are right."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.rl.config import check_divergence
from lmsi_jax.rl.divergence import adapted, estimate, exact


def expected_gradient(where, estimator, logits, reference):
    """The expected gradient of one sampled token, over all tokens: of a loss, or of a reward by the score function."""
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
    if where == "loss":
        return jax.grad(lambda x: jnp.sum(jnp.exp(p) * estimate(jax.nn.log_softmax(x), q, estimator)))(logits)
    reward = estimate(p, q, estimator)
    return jax.grad(lambda x: jnp.sum(jnp.exp(p) * reward * jax.nn.log_softmax(x)))(logits)


@pytest.mark.parametrize("scale", [0.01, 2.0])
def test_the_right_places_have_the_gradient_of_a_divergence(scale):
    """Catches: k1 in the loss, which regularises nothing, and k3 in the reward, both the default of a library."""
    rng = np.random.default_rng(0)
    with jax.enable_x64():
        reference = jnp.asarray(rng.normal(size=7))
        logits = reference + scale * jnp.asarray(rng.normal(size=7))
        reverse = jax.grad(lambda x: exact(x, reference))(logits)
        forward = jax.grad(lambda x: exact(reference, x))(logits)
        gradient = {
            (where, name): expected_gradient(where, name, logits, reference)
            for where, name in itertools.product(("loss", "reward"), ("k1", "k2", "k3"))
        }
        np.testing.assert_allclose(gradient["reward", "k1"], reverse, atol=1e-8)
        np.testing.assert_allclose(gradient["loss", "k2"], reverse, atol=1e-8)
        np.testing.assert_allclose(gradient["loss", "k3"], forward, atol=1e-8)
        np.testing.assert_allclose(gradient["loss", "k1"], 0, atol=1e-8)
        np.testing.assert_allclose(gradient["reward", "k3"], reverse - forward, atol=1e-8)


def test_wrong_places_are_refused_with_the_reason():
    """Catches: a coefficient that does nothing, accepted in silence."""
    for where, estimator in (("loss", "k2"), ("loss", "k3"), ("reward", "k1")):
        check_divergence(where, estimator)
    with pytest.raises(UserError, match="expected gradient is 0.*Use k2"):
        check_divergence("loss", "k1")
    for estimator in ("k2", "k3"):
        with pytest.raises(UserError, match="Use k1 there"):
            check_divergence("reward", estimator)


def test_estimates_have_the_mean_of_the_divergence():
    """Catches: a sign that is swapped; k3 that is negative."""
    rng = np.random.default_rng(1)
    with jax.enable_x64():
        logits, reference = (jnp.asarray(rng.normal(size=9)) for _ in range(2))
        p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
        for estimator in ("k1", "k3"):
            np.testing.assert_allclose(jnp.sum(jnp.exp(p) * estimate(p, q, estimator)), exact(logits, reference), atol=1e-12)
        assert (estimate(p, q, "k3") >= 0).all() and (estimate(p, p, "k3") == 0).all()
    assert adapted(0.1, kl=2.0, target=1.0, horizon=100, samples=10) == pytest.approx(0.1 * 1.02)
    assert adapted(0.1, kl=0.9, target=1.0, horizon=100, samples=10) == pytest.approx(0.1 * 0.99)
