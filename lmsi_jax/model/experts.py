"""A mixture of experts in place of a dense MLP (Shazeer et al. 2017, arXiv 1701.06538): a router chooses MLPs for each token.

No token is dropped, and no expert has a capacity: the rows of all tokens are sorted by expert and multiplied in groups of
unequal size. What a token gets does not depend on the other tokens of the batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from lmsi_jax.model.layers import ACTIVATIONS, MLP, Weights, fan_in
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import current_mesh

ROUTING = "routing"  # the variable collection with the routers' logits

_fan_in_each = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=1, out_axis=2, batch_axis=(0,))


class ExpertWeights(NamedTuple):
    """The matrices of all experts."""

    gate: Float[Array, "e d m"]
    up: Float[Array, "e d m"]
    down: Float[Array, "e m d"]


class Experts(Weights):
    """SwiGLU or GeGLU experts, of which each token uses `experts.per_token`; and one that all tokens share, if there is one.

    The router's logits, float32 of shape (n, t, experts), are recorded in the collection `ROUTING` for the losses of training.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        c, e = self.config, self.config.experts
        router = self.weight("router", (c.width, e.count), ("embed", "router"), fan_in, (0,), "gate.weight")
        matrices = ExpertWeights(self._stacked("gate"), self._stacked("up"), self._stacked("down"))
        logits = jnp.einsum("ntd,de->nte", x, router, preferred_element_type=jnp.float32)
        self.sow(ROUTING, "logits", logits)
        weights, chosen = choose(logits, e.per_token, renormalised=e.renormalised)
        mixed = mixture(x, weights, chosen, matrices, ACTIVATIONS[c.activation], self.sum_dtype)
        if not e.shared_mlp:
            return mixed
        dense = dataclasses.replace(c, mlp=e.shared_mlp)
        shared = MLP(dense, name="shared", prefix=f"{self.prefix}shared_expert.")(x)
        opens = self.weight("shared_gate", (c.width, 1), ("embed", "router"), fan_in, (0,), "shared_expert_gate.weight")
        return mixed + jax.nn.sigmoid(self.times("shared_gate", x, opens)) * shared

    def _stacked(self, name: str) -> jax.Array:
        """Declare and return one of the matrices of all experts."""
        c = self.config
        sizes, axes = (c.width, c.expert_mlp), ("embed", "mlp")
        if name == "down":
            sizes, axes = sizes[::-1], axes[::-1]
        file_name = f"experts.{{}}.{name}_proj.weight"
        return self.weight(name, (c.experts.count, *sizes), ("experts", *axes), _fan_in_each, (1,), file_name)


def choose(
    logits: Float[Array, "n t e"], count: int, *, renormalised: bool
) -> tuple[Float[Array, "n t k"], Int[Array, "n t k"]]:
    """Return the weights and the numbers of the `count` experts with the largest probabilities, the largest first.

    The weights are the probabilities of the softmax over all experts, or with `renormalised` these divided by their sum, which
    is the softmax over the chosen experts alone.
    """
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), count)
    return weights / jnp.sum(weights, axis=-1, keepdims=True) if renormalised else weights, chosen


def mixture(
    x: Float[Array, "n t d"],
    weights: Float[Array, "n t k"],
    chosen: Int[Array, "n t k"],
    matrices: ExpertWeights,
    activate: Callable[[Array], Array],
    sum_dtype: jnp.dtype | None = None,
) -> Float[Array, "n t d"]:
    """Return, for each token, the sum over its chosen experts of their outputs times their weights.

    Each device computes what its own experts, or its part of their hidden layers, contribute to the tokens of all devices that
    share these experts. `sum_dtype` is the dtype of the products' sums; None = that of `x`. Requires `use_mesh`.
    """
    mesh = current_mesh()
    batch, experts, hidden = (_used(mesh, name) for name in ("batch", "experts", "mlp"))
    if x.shape[0] % mesh.size("batch"):
        batch = ()  # all devices compute the few rows, such as one prompt
    spread = tuple(axis for axis in experts if axis in batch)  # along these, tokens travel to the experts and back
    summed = tuple(axis for axis in (*experts, *hidden) if axis not in spread)
    rows, wide = PartitionSpec(batch or None), PartitionSpec(experts or None, None, hidden or None)
    parts: list[Any] = [wide, wide, PartitionSpec(experts or None, hidden or None)]
    places: Any = (rows, rows, rows, ExpertWeights(*parts))

    @functools.partial(jax.shard_map, mesh=mesh.devices, in_specs=places, out_specs=rows, check_vma=False)
    def on_device(x: Array, weights: Array, chosen: Array, matrices: ExpertWeights) -> Array:
        for axis in reversed(spread):
            x, weights, chosen = (jax.lax.all_gather(a, axis, tiled=True) for a in (x, weights, chosen))
        place = jax.lax.axis_index(experts) if experts else 0
        mixed = _of_experts(x, weights, chosen - place * len(matrices.gate), matrices, activate, sum_dtype)
        for axis in spread:
            mixed = jax.lax.psum_scatter(mixed, axis, tiled=True)
        return (jax.lax.psum(mixed, summed) if summed else mixed).astype(x.dtype)

    mixed: Array = on_device(x, weights, chosen, matrices)
    return mixed


def _used(mesh: Mesh, logical: str) -> tuple[str, ...]:
    """Return the mesh axes of more than one device that a logical axis is mapped to."""
    return tuple(axis for axis in dict(mesh.rules)[logical] if mesh.devices.shape[axis] > 1)


def _of_experts(
    x: Array, weights: Array, chosen: Array, matrices: ExpertWeights, activate: Callable[[Array], Array], sum_dtype: Any
) -> Array:
    """Return what the given experts contribute to each token, in float32.

    They have the numbers 0 to e - 1 in `chosen`; other numbers are those of experts of other devices.
    """
    (n, t, k), (e, d, _) = chosen.shape, matrices.gate.shape
    expert = chosen.reshape(-1)
    is_here = (expert >= 0) & (expert < e)
    group = jnp.where(is_here, expert, e)
    order = jnp.argsort(group, stable=True)  # the rows of other devices' experts come last
    sizes = jnp.bincount(group, length=e + 1)[:e].astype(jnp.int32)
    product = functools.partial(jax.lax.ragged_dot, group_sizes=sizes, preferred_element_type=sum_dtype)
    inputs = x.reshape(-1, d)[order // k]
    hidden = activate(product(inputs, matrices.gate).astype(x.dtype)) * product(inputs, matrices.up).astype(x.dtype)
    outputs = product(hidden, matrices.down).astype(jnp.float32)[jnp.argsort(order)]
    outputs = jnp.where(is_here[:, None], outputs, 0.0).reshape(n, t, k, d)
    return jnp.einsum("ntk,ntkd->ntd", weights, outputs)


def balance(
    logits: Float[Array, "n t e"], count: int, counted: Float[Array, "n t"]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Return how evenly a router uses its experts, over the tokens that are `counted` (1 or 0): (balance, z, load, entropy).

    `balance` is e times the sum over experts of f x P, where f is the share of choices and P the mean probability of an expert:
    1 when both are even, at most e (Fedus et al. 2021, arXiv 2101.03961, equation 4). `z` is the mean square of the
    log-normaliser (Zoph et al. 2022, arXiv 2202.08906, equation 5). `load` is the largest f times e: 1 when even. `entropy` is
    the mean entropy of a token's probabilities, in nats.
    """
    experts, total = logits.shape[-1], jnp.maximum(jnp.sum(counted), 1.0)
    probabilities = jax.nn.softmax(logits, axis=-1)
    chosen = jax.nn.one_hot(jax.lax.top_k(logits, count)[1], experts).sum(axis=2) / count
    share, mean = (jnp.einsum("nt,nte->e", counted, each) / total for each in (chosen, probabilities))
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    entropy = normaliser - jnp.sum(probabilities * logits, axis=-1)
    of_tokens = [jnp.sum(counted * each) / total for each in (normaliser**2, entropy)]
    return experts * jnp.sum(share * mean), of_tokens[0], experts * jnp.max(share), of_tokens[1]
