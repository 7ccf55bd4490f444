import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

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
    token, logprob = sample(logits, keys, jnp.float32(temperature), top_k=top_k, top_p=top_p)
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
    token, logprob = sample(logits, keys, jnp.float32(0.0), top_k=top_k)
    assert (token == 0).all()
    np.testing.assert_allclose(logprob, np.log(expected(1.0, 0, 1.0)[0]), atol=1e-5)
