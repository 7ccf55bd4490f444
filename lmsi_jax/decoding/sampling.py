"""From logits to a token and its log-probability."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def sample(
    logits: Float[Array, "n v"],
    keys: Key[Array, " n"],
    temperature: Float[Array, ""],
    *,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """One token a row, each with its own key, and the log-probability (nats) it was drawn with.

    The distribution is softmax(logits / temperature), cut to the `top_k` likeliest tokens (0 = all), then to the smallest
    set whose probability reaches `top_p`, and renormalised. Temperature 0 takes the likeliest token; its
    log-probability is then that of the model at temperature 1, as a point mass would say nothing.
    """
    greedy = temperature == 0
    scaled = logits.astype(jnp.float32) / jnp.where(greedy, 1.0, temperature)
    vocab = logits.shape[-1]
    if (top_k == 0 or top_k >= vocab) and top_p == 1.0:
        drawn = jax.vmap(jax.random.categorical)(keys, scaled)
        token = jnp.where(greedy, jnp.argmax(scaled, axis=-1), drawn)
        chosen = jnp.take_along_axis(scaled, token[:, None], axis=-1)[:, 0]
        return token, chosen - jax.nn.logsumexp(scaled, axis=-1)
    values, ids = jax.lax.top_k(scaled, min(top_k, vocab) if top_k else vocab)
    probability = jax.nn.softmax(values, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability  # mass of the likelier tokens
    kept = jnp.where(before < top_p, values, -jnp.inf)
    rank = jnp.where(greedy, 0, jax.vmap(jax.random.categorical)(keys, kept))
    token = jnp.take_along_axis(ids, rank[:, None], axis=-1)[:, 0]
    cut = jnp.take_along_axis(jax.nn.log_softmax(kept, axis=-1), rank[:, None], axis=-1)[:, 0]
    return token, jnp.where(greedy, values[:, 0] - jax.nn.logsumexp(scaled, axis=-1), cut)
