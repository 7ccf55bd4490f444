"""The objective of policy gradients, for the training loop."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lmsi_jax.core.metrics import Mean
from lmsi_jax.model import lora, transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.rl import divergence
from lmsi_jax.rl.config import RlConfig
from lmsi_jax.rl.losses import LOSSES, is_clipped
from lmsi_jax.rl.rows import PROMPT_BUCKET
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import sharding
from lmsi_jax.training.objective import Batch, Objective, SharedPrompts, causal_mask, shared_blocks


def policy_logits(
    config: ModelConfig, params: transformer.Params | lora.Adapted, batch: Batch, temperature: float, remat: str = "none"
) -> Float[Array, "n t v"]:
    """Return the logits of the distribution that tokens are sampled from: at the temperature of sampling."""
    rows, shared = batch.rows, batch.shared
    past = shared_blocks(config, params, shared, rows["prompt"], remat) if shared is not None else None
    logits, _ = transformer.forward(
        config, params, rows["tokens"], rows["positions"], causal_mask(rows["segments"]), past, remat
    )
    return logits / temperature


def target_logprobs(logits: Float[Array, "n t v"], targets: Any) -> Float[Array, "n t"]:
    """Return the log-probability of each target."""
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def policy_objective(config: ModelConfig, rl: RlConfig, remat: str = "none") -> Objective:
    """Return the loss of `rl` over the rows of `rows.pack_paths`, with the `weights` of `losses.weights`.

    If the divergence is in the loss, rows also have `reference_logprobs`. Metrics are means over trained tokens: `entropy` in
    nats, `ratio` to the policy that sampled and `approx_kl` from it, `clip_ratio`, and `kl` from the reference.
    """
    policy_loss, in_loss = LOSSES[rl.loss], rl.beta and rl.kl_where == "loss"

    def objective(params: transformer.Params | lora.Adapted, batch: Batch) -> tuple[Mean, dict[str, Mean]]:
        rows = batch.rows
        logits = policy_logits(config, params, batch, rl.temperature, remat)
        logprobs, sequences = target_logprobs(logits, rows["targets"]), rows["sequences"]
        old = jnp.where(sequences > 0, rows["old_logprobs"], jax.lax.stop_gradient(logprobs))
        inside = (sequences > 0).astype(jnp.float32)
        losses = policy_loss(logprobs, old, rows["advantages"], sequences, rl.clip)
        measured = {
            "entropy": _entropy(logits),
            "ratio": jnp.exp(logprobs - old),
            "approx_kl": old - logprobs,
            "clip_ratio": is_clipped(logprobs, old, rows["advantages"], rl.clip),
        }
        if in_loss:
            measured["kl"] = divergence.estimate(logprobs, rows["reference_logprobs"], "k3")
            losses += rl.beta * divergence.estimate(logprobs, rows["reference_logprobs"], rl.kl_estimator)
        count = jnp.sum(inside)
        metrics = {name: Mean(jnp.sum(jax.lax.stop_gradient(values) * inside), count) for name, values in measured.items()}
        return Mean(jnp.sum(losses * rows["weights"]), count), metrics

    return objective


def _entropy(logits: Float[Array, "n t v"]) -> Float[Array, "n t"]:
    logits = jax.lax.stop_gradient(logits)
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jax.nn.softmax(logits) * logits, axis=-1)


def place_padded(mesh: Mesh, prompts: Sequence[Sequence[int]]) -> SharedPrompts:
    """Put prompts on the mesh, padded to a multiple of `PROMPT_BUCKET` tokens and of the batch shards."""
    shards, longest = mesh.size("batch"), max(map(len, prompts))
    shape = (-(-len(prompts) // shards) * shards, -(-longest // PROMPT_BUCKET) * PROMPT_BUCKET)
    tokens, length = np.zeros(shape, np.int32), np.zeros(shape[0], np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], length[row] = prompt, len(prompt)
    placed = jax.device_put(tokens, sharding(mesh, "batch", "length"))
    return SharedPrompts(placed, jax.device_put(length, sharding(mesh, None)))
