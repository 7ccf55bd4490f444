"""Objectives: functions from parameters and a batch to a loss. The training step accepts any of them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from lmsi_jax.core.metrics import Mean
from lmsi_jax.model import transformer
from lmsi_jax.model.attention import KVBlock, causal
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.experts import balance
from lmsi_jax.model.layers import KeyValue
from lmsi_jax.model.readout import read_targets
from lmsi_jax.model.stacked import OfLayers
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import constrain, sharding
from lmsi_jax.training.config import RouterConfig


class SharedPrompts(struct.PyTreeNode):
    """Prompts that rows continue, each computed once per step.

    `tokens` are padded to the longest prompt, and `length` has the lengths without padding. The number of prompts is padded
    to a multiple of the batch shards.
    """

    tokens: Int[Array, "p s"]
    length: Int[Array, " p"]


class Batch(struct.PyTreeNode):
    """The rows of a step, as arrays by name whose first axis is the row, and the prompts that the rows share, if any.

    Rows of packed sequences have `tokens`, `targets`, `weights`, `segments` and `positions`, each (rows, t), and `prompt`
    (rows,). `prompt` is the number of the shared prompt that a row continues, counted from 1. It is 0 when the sequences of
    the row are complete.
    """

    rows: dict[str, Any]
    shared: SharedPrompts | None = None


# (parameters, batch) -> the sum and the count of the loss, and further metrics likewise.
Objective = Callable[[Any, Batch], tuple[Mean, dict[str, Mean]]]


@functools.cache
def cross_entropy(
    config: ModelConfig, remat: str = "none", z_loss: float = 0.0, router: RouterConfig | None = None
) -> Objective:
    """Return the next-token cross-entropy: its total is the weighted sum over targets in nats, its count the sum of weights.

    With `z_loss`, the loss of each target also has `z_loss` times the square of the log-normaliser of its logits, which
    keeps logits from drifting (Chowdhery et al. 2022, section 5). With `router`, each target of a model with experts has the
    losses of its routers. Their metrics are means over layers and microbatches.
    """

    def objective(params: transformer.AnyParams, batch: Batch) -> tuple[Mean, dict[str, Mean]]:
        rows = batch.rows
        states, routing = _routed_states(config, params, batch, remat)
        read = read_targets(config, params, states, rows["targets"])
        losses = -read.logprob + z_loss * read.normaliser**2 if z_loss else -read.logprob
        total, count = jnp.sum(losses * rows["weights"]), jnp.sum(rows["weights"])
        if not routing:
            return Mean(total, count), {}
        tokens = (rows["segments"] > 0).astype(jnp.float32)
        of_layers = [_measured(logits, tokens) for logits in routing]
        measured = {name: sum(each[name] for each in of_layers) / len(of_layers) for name in of_layers[0]}
        if router is not None:
            total += count * (router.balance * measured["router_balance"] + router.z_loss * measured["router_z"])
        return Mean(total, count), {name: Mean(count * value, count) for name, value in measured.items()}

    def _measured(logits: Float[Array, "n t e"], tokens: Float[Array, "n t"]) -> dict[str, Array]:
        names = ("router_balance", "router_z", "router_load", "router_entropy")
        return dict(zip(names, balance(logits, config.experts.per_token, tokens), strict=True))

    return objective


def hidden_states(
    config: ModelConfig, params: transformer.AnyParams, batch: Batch, remat: str = "none"
) -> Float[Array, "n t d"]:
    """Return the hidden states of the rows of a batch, which continue its shared prompts."""
    return transformer.hidden(config, params, *_inputs(config, params, batch, remat), remat=remat)[0]


def _routed_states(
    config: ModelConfig, params: transformer.AnyParams, batch: Batch, remat: str
) -> tuple[Float[Array, "n t d"], list[Float[Array, "n t e"]]]:
    """Return the hidden states of `hidden_states`, and the logits of the routers in the rows, if the model has experts."""
    if not config.sparse_layers:
        return hidden_states(config, params, batch, remat), []
    return transformer.routed_hidden(config, params, *_inputs(config, params, batch, remat), remat=remat)


def _inputs(
    config: ModelConfig, params: transformer.AnyParams, batch: Batch, remat: str
) -> tuple[Int[Array, "n t"], Int[Array, "n t"], Bool[Array, "n t t"], transformer.Past]:
    """Return the tokens, the positions, the mask, and the blocks of shared prompts of the rows of a batch."""
    rows, shared = batch.rows, batch.shared
    past = shared_blocks(config, params, shared, rows["prompt"], remat) if shared is not None else None
    return rows["tokens"], rows["positions"], causal_mask(rows["segments"]), past


def causal_mask(segments: Int[Array, "n t"]) -> Bool[Array, "n t t"]:
    """Return the mask in which token i attends to token j when j is not later than i and in the same segment.

    Padding (segment 0) attends to padding, so that no softmax is over an empty set.
    """
    t = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    return same & jnp.tril(jnp.ones((t, t), bool))[None]


def shared_blocks(
    config: ModelConfig,
    params: transformer.AnyParams,
    prompts: SharedPrompts,
    prompt: Int[Array, " n"],
    remat: str = "none",
) -> list[list[KVBlock]] | OfLayers:
    """Return, for each layer, the keys and values of the prompt that each row continues.

    Each prompt is computed once, and its gradient is the sum over all rows that continue it.
    """
    slots = jnp.arange(prompts.tokens.shape[1])[None, :]
    _, cache = transformer.hidden(config, params, prompts.tokens, *causal(*prompts.tokens.shape), remat=remat)
    index = jnp.maximum(prompt - 1, 0)
    seen = (slots < prompts.length[index][:, None]) & (prompt > 0)[:, None]

    def by_row(array: Array) -> Array:
        replicated = constrain(array, None, "kv_heads", "length", "head_width")
        return constrain(replicated[index], "batch", "kv_heads", "length", "head_width")

    def fields(of_layer: KeyValue) -> list[tuple[Array, Array, Array, Array]]:
        keys, values = of_layer
        return [(by_row(keys), by_row(values), seen, slots)]

    if isinstance(cache, OfLayers):
        return cache.map(fields)
    return [[KVBlock(*block) for block in fields(of_layer)] for of_layer in cache]


def place_prompts(mesh: Mesh, prompts: Sequence[Sequence[int]], bucket: int = 1) -> SharedPrompts | None:
    """Put shared prompts on the mesh as arrays that are padded to a multiple of `bucket` tokens; None without prompts."""
    if not prompts:
        return None
    shards = mesh.size("batch")
    rows = -(-len(prompts) // shards) * shards
    tokens, length = np.zeros((rows, -(-max(map(len, prompts)) // bucket) * bucket), np.int32), np.zeros(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], length[row] = prompt, len(prompt)
    placed = jax.device_put(tokens, sharding(mesh, "batch", "length"))
    return SharedPrompts(placed, jax.device_put(length, sharding(mesh, None)))


def place_batch(mesh: Mesh, batch: Batch) -> Batch:
    """Put the rows of a host batch on the mesh, sharded over its batch axes. Shared prompts are on the mesh already."""
    axes = ("batch", "length")
    rows = {name: jax.device_put(array, sharding(mesh, *axes[: array.ndim])) for name, array in batch.rows.items()}
    return Batch(rows, batch.shared)
