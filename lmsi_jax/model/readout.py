"""What the logits say about given target tokens, without the logits of all positions in memory at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.positions import by_positions
from lmsi_jax.sharding.rules import current_mesh

LOGITS = 2**25  # logits that a device computes at a time: 128 MiB in float32


class Readout(NamedTuple):
    """For each position: the distribution over the next token, and the target's place in it. Logarithms are in nats."""

    logprob: Float[Array, "n t"]  # of the target
    likeliest: Bool[Array, "n t"]  # whether no token is likelier than the target
    normaliser: Float[Array, "n t"]  # logarithm of the sum of the exponentiated logits
    entropy: Float[Array, "n t"]  # without a gradient


def read_targets(
    config: ModelConfig,
    params: transformer.AnyParams,
    states: Float[Array, "n t d"],
    targets: Int[Array, "n t"],
    temperature: float = 1.0,
) -> Readout:
    """Return what the logits of hidden states, divided by `temperature`, say about the targets.

    Where a device's logits would exceed LOGITS, they are computed for some positions at a time, and again in the backward
    pass. This costs a fourth product with the unembedding where there were three, and saves several arrays of the size
    rows x length x vocabulary.
    """

    def read(states: Float[Array, "n c d"], targets: Int[Array, "n c"]) -> Readout:
        logits = transformer.logits(config, params, states) / temperature
        logprob = -optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        fixed = jax.lax.stop_gradient(logits)
        entropy = jax.nn.logsumexp(fixed, axis=-1) - jnp.sum(jax.nn.softmax(fixed) * fixed, axis=-1)
        return Readout(logprob, jnp.argmax(fixed, axis=-1) == targets, jax.nn.logsumexp(logits, axis=-1), entropy)

    mesh = current_mesh()
    of_position = len(targets) * config.vocab  # logits
    at_a_time = max(LOGITS * mesh.size("batch") * mesh.size("vocab") // of_position, 1)
    return by_positions(read, at_a_time, states, targets)
