"""Sample a token and its log-probability from logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lmsi_jax.decoding.config import Truncation

FULL = Truncation()  # the full vocabulary
BLOCK = 128  # tokens per block: sampling first chooses a block by the blocks' sums, then a token of that block

# Ways to truncate the distribution, in the order in which they are applied. Each maps a field of Truncation to the value
# that keeps all tokens, and to a function of (probabilities, likeliest first; the field's value) that marks the tokens to keep.
CUTS: dict[str, tuple[float, Callable[[Float[Array, "n e"], float], Bool[Array, "n e"]]]] = {
    "top_p": (1.0, lambda probability, top_p: jnp.cumsum(probability, axis=-1) - probability < top_p),
}


def sample(
    logits: Float[Array, "n v"],
    keys: Key[Array, " n"],
    temperature: Float[Array, " n"],
    truncation: Truncation = FULL,
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Sample one token per row, each with its own key, and return the tokens and their log-probabilities (nats).

    The distribution is softmax(logits / temperature), truncated to the `top_k` likeliest tokens (0 = all), then by each of
    `CUTS`, and renormalised; the log-probability is under this distribution. Temperature 0 is greedy decoding. Its
    log-probability is that of the model at temperature 1, since the greedy distribution puts probability 1 on one token.
    """
    greedy = temperature == 0
    scaled = logits.astype(jnp.float32) / jnp.where(greedy, 1.0, temperature)[:, None]
    draw = _drawn if _keeps_all(truncation, logits.shape[-1]) else _drawn_of(truncation)

    def either(scaled: Float[Array, "n v"], keys: Key[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        likeliest, drawn = _likeliest(scaled, keys), draw(scaled, keys)
        return jnp.where(greedy, likeliest[0], drawn[0]), jnp.where(greedy, likeliest[1], drawn[1])

    mixture = jnp.where(jnp.all(greedy), 0, jnp.where(jnp.any(greedy), 1, 2))
    return jax.lax.switch(mixture, (_likeliest, either, draw), scaled, keys)


def _keeps_all(truncation: Truncation, vocab: int) -> bool:
    uncut = all(getattr(truncation, name) == neutral for name, (neutral, _) in CUTS.items())
    return uncut and (truncation.top_k == 0 or truncation.top_k >= vocab)


def _likeliest(scores: Float[Array, "n v"], keys: Key[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    token = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return token, take(scores, token) - jax.nn.logsumexp(scores, axis=-1)


def _drawn_of(truncation: Truncation) -> Callable[..., tuple[Int[Array, " n"], Float[Array, " n"]]]:
    """Return a function like `_drawn` that samples from the truncated distribution."""

    def draw(scores: Float[Array, "n v"], keys: Key[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        vocab = scores.shape[-1]
        values, ids = jax.lax.top_k(scores, min(truncation.top_k, vocab) if truncation.top_k else vocab)
        for name, (neutral, keeps) in CUTS.items():
            if getattr(truncation, name) != neutral:
                kept = keeps(jax.nn.softmax(values, axis=-1), getattr(truncation, name))
                values = jnp.where(kept, values, -jnp.inf)
        rank, logprob = _drawn(values, keys)
        return take(ids, rank), logprob

    return draw


def _drawn(scores: Float[Array, "n v"], keys: Key[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Sample from softmax(scores) by inverting its cumulative distribution, with two random numbers per row."""
    n, v = scores.shape
    padded = jnp.pad(scores, ((0, 0), (0, -v % BLOCK)), constant_values=-jnp.inf)
    top = jnp.max(padded, axis=-1, keepdims=True)
    mass = jnp.exp(padded - top).reshape(n, -1, BLOCK)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    sums = jnp.sum(mass, axis=-1)
    block = _invert(sums, uniform[:, 0])
    inside = jnp.take_along_axis(mass, block[:, None, None], axis=1)[:, 0]
    token = block * BLOCK + _invert(inside, uniform[:, 1])
    return token, take(scores, token) - top[:, 0] - jnp.log(jnp.sum(sums, axis=-1))


def _invert(mass: Float[Array, "n e"], uniform: Float[Array, " n"]) -> Int[Array, " n"]:
    """Return the first entry whose cumulative share of the mass exceeds `uniform`; it is never an entry without mass."""
    reached = jnp.cumsum(mass, axis=-1)
    return jnp.sum(reached <= uniform[:, None] * reached[:, -1:], axis=-1, dtype=jnp.int32)


def take(values: Array, index: Int[Array, " n"]) -> Array:
    """Return the entry of each row at its index."""
    return jnp.take_along_axis(values, index[:, None], axis=-1)[:, 0]
