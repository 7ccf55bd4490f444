"""The objective of policy gradients, for the training loop."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmsi_jax.core.metrics import Mean
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.readout import read_targets
from lmsi_jax.rl import divergence
from lmsi_jax.rl.config import RlConfig
from lmsi_jax.rl.head import ModelWithHead, policy_of
from lmsi_jax.rl.losses import LOSSES, is_clipped, sequence_mean, value_loss
from lmsi_jax.training.objective import Batch, Objective, hidden_states


def policy_logprobs(
    config: ModelConfig, params: transformer.AnyParams, batch: Batch, temperature: float, remat: str = "none"
) -> Float[Array, "n t"]:
    """Return the log-probability of each target in the distribution that tokens are sampled from at a temperature."""
    states = hidden_states(config, params, batch, remat)
    return read_targets(config, params, states, batch.rows["targets"], temperature).logprob


@functools.cache
def policy_objective(config: ModelConfig, rl: RlConfig, remat: str = "none") -> Objective:
    """Return the loss of `rl` over the rows of `rows.pack_paths`, with the `weights` of `losses.weights`.

    If the divergence is in the loss, rows also have `reference_logprobs`. The parameters may be a `ModelWithHead`, whose head
    reads the values of states (PPO): rows then have `returns` and `old_values`, and the loss has that of the values.

    Metrics are means over trained tokens: `entropy` in nats, `ratio` to the policy that sampled and `approx_kl` from it, `kl`
    from the reference, `value_loss` without its coefficient, and for losses with a clip `clip_ratio`: tokens, or all tokens
    of sequences, without a gradient.
    """
    policy_loss, in_loss = LOSSES[rl.loss], rl.beta and rl.kl_where == "loss"

    def objective(params: Any, batch: Batch) -> tuple[Mean, dict[str, Mean]]:
        rows, policy = batch.rows, policy_of(params)
        states = hidden_states(config, policy, batch, remat)
        read = read_targets(config, policy, states, rows["targets"], rl.temperature)
        logprobs, sequences = read.logprob, rows["sequences"]
        old = jnp.where(sequences > 0, rows["old_logprobs"], jax.lax.stop_gradient(logprobs))
        inside = (sequences > 0).astype(jnp.float32)
        losses = policy_loss(logprobs, old, rows["advantages"], sequences, rl.clip)
        measured = {
            "entropy": read.entropy,
            "ratio": jnp.exp(logprobs - old),
            "approx_kl": old - logprobs,
        }
        if rl.loss in ("ppo", "gspo"):
            clipped = old + sequence_mean(logprobs - old, sequences) if rl.loss == "gspo" else logprobs
            measured["clip_ratio"] = is_clipped(clipped, old, rows["advantages"], rl.clip)
        if in_loss:
            measured["kl"] = divergence.estimate(logprobs, rows["reference_logprobs"], "k3")
            losses += rl.beta * divergence.estimate(logprobs, rows["reference_logprobs"], rl.kl_estimator)
        if isinstance(params, ModelWithHead):
            measured["value_loss"] = value_loss(params.read(states), rows["old_values"], rows["returns"], rl.value.clip)
            losses += rl.value.coefficient * measured["value_loss"]
        count = jnp.sum(inside)
        metrics = {name: Mean(jnp.sum(jax.lax.stop_gradient(values) * inside), count) for name, values in measured.items()}
        return Mean(jnp.sum(losses * rows["weights"]), count), metrics

    return objective
