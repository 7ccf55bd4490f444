"""Losses of pairs and rankings: of a reward model, and of a policy that learns from preferences.

Scores and log-ratios are of pairs, shape (pairs,). The log-ratio of an answer is log p(answer) - log p_ref(answer), summed over
its tokens; `margins` is that of the chosen answer minus that of the rejected one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Pairs = Float[Array, " n"]


def bradley_terry(chosen: Pairs, rejected: Pairs, margin: Pairs | float = 0.0, centring: float = 0.0) -> Pairs:
    """Return -log sigmoid(chosen - rejected - margin) + centring (chosen + rejected)^2 (Bradley and Terry 1952).

    `margin` is that of Llama 2 (arXiv 2307.09288); `centring` keeps scores around 0, 0.01 in arXiv 2312.09244.
    """
    return -jax.nn.log_sigmoid(chosen - rejected - margin) + centring * (chosen + rejected) ** 2


def pairs_of_ranking(scores: Float[Array, "n k"], ranks: Int[Array, "n k"]) -> Float[Array, " n"]:
    """Return the mean Bradley-Terry loss over all pairs of one ranking (Ouyang et al. 2022, arXiv 2203.02155, equation 1).

    `ranks`: 1 = best, 0 = no answer. A tie is half a win for each side.
    """
    difference = scores[:, :, None] - scores[:, None, :]
    real = (ranks[:, :, None] > 0) & (ranks[:, None, :] > 0) & ~jnp.eye(scores.shape[1], dtype=bool)[None]
    better, tied = ranks[:, :, None] < ranks[:, None, :], ranks[:, :, None] == ranks[:, None, :]
    wins = jnp.where(real, jnp.where(better, 1.0, jnp.where(tied, 0.5, 0.0)), 0.0)
    losses = -jax.nn.log_sigmoid(difference) * wins
    return losses.sum(axis=(1, 2)) / jnp.maximum(wins.sum(axis=(1, 2)), 1)


def plackett_luce(scores: Float[Array, "n k"], ranks: Int[Array, "n k"]) -> Float[Array, " n"]:
    """Return -sum log softmax over the answers that are left, from the best to the last but one (Plackett 1975).

    `ranks`: 1 = best, all different; 0 = no answer.
    """
    order = jnp.argsort(jnp.where(ranks > 0, ranks, jnp.iinfo(ranks.dtype).max), axis=1)
    ordered = jnp.take_along_axis(scores, order, axis=1)
    real: Bool[Array, "n k"] = jnp.take_along_axis(ranks, order, axis=1) > 0
    hidden = jnp.where(real, ordered, jnp.finfo(scores.dtype).min / 2)
    left = jax.lax.cumlogsumexp(hidden, axis=1, reverse=True)
    return jnp.sum(jnp.where(real, left - ordered, 0.0), axis=1)


def dpo(margins: Pairs, beta: float = 0.1, smoothing: float = 0.0) -> Pairs:
    """Return -log sigmoid(beta margin) (Rafailov et al. 2023, arXiv 2305.18290); `smoothing` is the share of wrong labels."""
    return -(1 - smoothing) * jax.nn.log_sigmoid(beta * margins) - smoothing * jax.nn.log_sigmoid(-beta * margins)


def ipo(margins: Pairs, beta: float = 0.1) -> Pairs:
    """Return (margin - 1 / (2 beta))^2 (Azar et al. 2023, arXiv 2310.12036), of sums over tokens, not of means."""
    return (margins - 1 / (2 * beta)) ** 2


def scpo(
    margins: Pairs, weights: Pairs, chosen_logprobs: Pairs, chosen_lengths: Pairs, beta: float = 0.5, alpha: float = 1.0
) -> Pairs:
    """Return the loss of self-consistency preferences (Prasad et al. 2024, arXiv 2411.04109, equation 3).

    w times DPO's loss, plus alpha w times the loss per token of the chosen answer. w is (votes of the chosen answer - votes of
    the rejected one) / paths.
    """
    return weights * (dpo(margins, beta) - alpha * chosen_logprobs / chosen_lengths)
