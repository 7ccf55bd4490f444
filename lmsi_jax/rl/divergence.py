"""The Kullback-Leibler divergence of the policy from a reference: estimators from single tokens, and where they belong.

With x = log p - log p_ref of a sampled token: k1 = x, k2 = x^2 / 2, k3 = exp(-x) - 1 + x (Schulman 2020). All three estimate a
divergence. What matters in training is the expected gradient, which depends on where the estimator is put (arXiv 2512.21852):

    where    estimator  expected gradient of
    reward   k1         KL(p | p_ref)
    loss     k2         KL(p | p_ref)
    loss     k3         KL(p_ref | p), which is close to it near the reference
    loss     k1         nothing: it is 0
    reward   k2, k3     no divergence
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmsi_jax.rl.config import Estimator


def estimate(logprobs: Float[Array, "..."], reference: Float[Array, "..."], estimator: Estimator) -> Float[Array, "..."]:
    """Return the estimate of KL(p | p_ref) from each sampled token; the mean over samples of k1 and k3 is unbiased."""
    x = logprobs - reference
    if estimator == "k1":
        return x
    return x**2 / 2 if estimator == "k2" else jnp.expm1(-x) + x


def exact(logits: Float[Array, "... v"], reference: Float[Array, "... v"]) -> Float[Array, "..."]:
    """Return KL(p | p_ref) of whole distributions, from their logits."""
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


def adapted(beta: float, kl: float, target: float, horizon: int, samples: int) -> float:
    """Return the next coefficient: beta (1 + clip(kl / target - 1, -0.2, 0.2) samples / horizon) (Ziegler et al. 2019)."""
    return beta * (1 + max(-0.2, min(0.2, kl / target - 1)) * samples / horizon)
