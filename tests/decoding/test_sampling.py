import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lmsi_jax.decoding.config import Truncation
from lmsi_jax.decoding.sampling import sample

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
DRAWS = 20_000


def expected(temperature, top_k, top_p):
    """The distribution by its definition, in numpy."""
    p = np.exp(LOGITS.astype(np.float64) / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    if top_k:
        p[order[top_k:]] = 0
        p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= top_p]] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.5, 3, 1.0), (1.0, 0, 0.8), (1.2, 4, 0.7)]
)
def test_frequencies_follow_the_distribution(temperature, top_k, top_p):
    """Catches: temperature applied twice or after the cut, top-p that drops the token that crosses the line."""
    keys = jax.random.split(jax.random.key(1), DRAWS)
    logits = jnp.broadcast_to(jnp.asarray(LOGITS)[None], (DRAWS, 6))
    token, logprob = sample(logits, keys, jnp.full(DRAWS, temperature), Truncation(top_k, top_p))
    wanted = expected(temperature, top_k, top_p)
    counts = np.bincount(np.asarray(token), minlength=6)
    assert (counts[wanted == 0] == 0).all()
    kept = wanted > 0
    assert stats.chisquare(counts[kept], wanted[kept] * DRAWS).pvalue > 1e-3
    np.testing.assert_allclose(logprob, np.log(wanted[np.asarray(token)]), atol=1e-5)


@pytest.mark.parametrize("top_k", [0, 3])
def test_temperature_zero_is_greedy(top_k):
    """Catches: a division by zero, or noise that survives it."""
    keys = jax.random.split(jax.random.key(0), 50)
    logits = jnp.broadcast_to(jnp.asarray(LOGITS)[None], (50, 6))
    token, logprob = sample(logits, keys, jnp.zeros(50), Truncation(top_k))
    assert (token == 0).all()
    np.testing.assert_allclose(logprob, np.log(expected(1.0, 0, 1.0)[0]), atol=1e-5)


def test_greedy_and_sampled_rows_side_by_side():
    """Catches: a greedy row that is drawn, or drawn rows that change, where the two stand in one batch."""
    keys = jax.random.split(jax.random.key(2), 60)
    logits = jnp.broadcast_to(jnp.asarray(LOGITS)[None], (60, 6))
    temperature = jnp.where(jnp.arange(60) % 3 == 0, 0.0, 0.9)
    token, logprob = sample(logits, keys, temperature)
    greedy, drawn = sample(logits, keys, jnp.zeros(60)), sample(logits, keys, jnp.full(60, 0.9))
    for got, likeliest, sampled in zip((token, logprob), greedy, drawn, strict=True):
        np.testing.assert_array_equal(got, np.where(temperature == 0, likeliest, sampled))
    assert len(set(np.asarray(token).tolist())) > 1
