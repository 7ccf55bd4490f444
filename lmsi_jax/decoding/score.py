"""Log-probabilities of existing tokens, by one teacher-forced forward pass."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lmsi_jax.model import transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.readout import read_targets
from lmsi_jax.model.transformer import AnyParams
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import jit, sharding, use_mesh

BUCKET = 64  # lengths are rounded up to multiples of this, so that few programs compile


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of a row of t tokens: for each token but the first, its log-probability and whether it is the likeliest."""

    logprobs: np.ndarray  # (t - 1,) float32, nats
    likeliest: np.ndarray  # (t - 1,) bool


def score(
    mesh: Mesh,
    config: ModelConfig,
    params: AnyParams,
    rows: Sequence[Sequence[int]],
    batch: int,
) -> Iterator[Scores]:
    """Return the scores of each row, in order. Rows of similar length are computed together, `batch` at a time."""
    batch = -(-batch // mesh.size("batch")) * mesh.size("batch")
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    scores: dict[int, Scores] = {}
    with use_mesh(mesh):
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            longest = -(-max(len(rows[i]) for i in chosen) // BUCKET) * BUCKET
            tokens = np.zeros((batch, longest), np.int32)
            for row, i in enumerate(chosen):
                tokens[row, : len(rows[i])] = rows[i]
            placed = jax.device_put(tokens, sharding(mesh, "batch", None))
            logprobs, likeliest = jax.device_get(token_logprobs(config, params, placed))
            for row, i in enumerate(chosen):
                inside = slice(0, len(rows[i]) - 1)
                scores[i] = Scores(logprobs[row, inside], likeliest[row, inside])
    return (scores[i] for i in range(len(rows)))


@functools.partial(jit, static_argnums=(0,))
def token_logprobs(
    config: ModelConfig, params: AnyParams, tokens: Int[Array, "n t"]
) -> tuple[Float[Array, "n t-1"], Bool[Array, "n t-1"]]:
    """Return, for each token but the first of its row, its log-probability (nats) and whether it is the likeliest."""
    states, _ = transformer.hidden(config, params, tokens, *causal(*tokens.shape))
    read = read_targets(config, params, states[:, :-1], tokens[:, 1:])
    return read.logprob, read.likeliest
