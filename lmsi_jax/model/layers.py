"""The layers. A weight is one line: name, shape, logical axes, initialiser."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmsi_jax.core.config import ModelConfig
from lmsi_jax.model.attention import Block, attend, rotate
from lmsi_jax.model.lora import ADAPTERS
from lmsi_jax.model.quantize import SCALES
from lmsi_jax.model.rope import frequencies
from lmsi_jax.sharding import constrain, platform

KeyValue = tuple[Float[Array, "n k s h"], Float[Array, "n k s h"]]  # as a Block has them

_fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
# The projections that write to the residual stream have two (or three) input axes, or follow a nonlinearity.
_fan_in_heads = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2)
_fan_in_split = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
_zeros, _ones = nn.initializers.zeros, nn.initializers.ones


def cache_dtype(config: ModelConfig) -> jnp.dtype:
    """Of keys and values: the config's; on a CPU float32, where a batch of bfloat16 products takes ten times as long."""
    return jnp.dtype("float32" if platform() == "cpu" else config.dtype)


def product(equation: str, x: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, "..."]:
    """An einsum in the dtype of `x`. On a CPU it is summed in float32 by name: bfloat16 results have no fast path there."""
    summed = jnp.float32 if platform() == "cpu" else None
    return jnp.einsum(equation, x, weights, preferred_element_type=summed).astype(x.dtype)


class Weights(nn.Module):
    """A module that declares weights in the config's dtype and hands them out in the compute dtype."""

    config: ModelConfig

    def weight(self, name: str, shape: tuple[int, ...], axes: tuple[str, ...], init) -> jax.Array:
        if self.has_variable("params", name):  # `param` would trace the initialiser for each weight at each trace
            value: Any = self.get_variable("params", name)
        else:
            partitioned = nn.with_logical_partitioning(init, axes)
            value = self.param(name, partitioned, shape, jnp.dtype(self.config.param_dtype))
        if self.has_variable(SCALES, name):
            value = value * self.get_variable(SCALES, name)
        return jnp.asarray(value, self.config.dtype)

    def times(self, name: str, x: Float[Array, "n t i"], matrix: Float[Array, "i *o"]) -> Float[Array, "n t *o"]:
        """`x` times the weight of this name, plus `x` times the weight's low-rank adapter if it has one, rounded once."""
        if not self.has_variable(ADAPTERS, name):
            return product("nti,i...->nt...", x, matrix)
        a, b = (jnp.asarray(self.get_variable(ADAPTERS, name)[part], x.dtype) for part in "ab")
        wide = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        low = product("nti,ir->ntr", x, a.reshape(x.shape[-1], -1))
        return (wide("nti,i...->nt...", x, matrix) + wide("ntr,r...->nt...", low, b)).astype(x.dtype)


class Norm(Weights):
    """Root-mean-square norm (Zhang and Sennrich 2019), or layer norm without bias; over the last axis, in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        c = self.config
        plus_one = c.norm == "rms_plus_one"
        scale = self.weight("scale", (x.shape[-1],), ("norm",), _zeros if plus_one else _ones)
        scale = scale.reshape(*[1] * (x.ndim - 1), -1)
        wide = x.astype(jnp.float32)
        if c.norm == "layer":
            wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + c.norm_epsilon)
        return (normed * (1 + scale.astype(jnp.float32))).astype(x.dtype) if plus_one else normed.astype(x.dtype) * scale


class Attention(Weights):
    """Grouped-query attention over past blocks and the tokens at hand."""

    window: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t d"], positions: Int[Array, "n t"], mask: Array, past: list[Block]
    ) -> tuple[Float[Array, "n t d"], KeyValue]:
        c = self.config
        wo = self.weight("out", (c.heads, c.head_width, c.width), ("heads", "head_width", "embed"), _fan_in_heads)
        query = self._project("query", x, "heads", c.heads)
        key = self._project("key", x, "kv_heads", c.kv_heads)
        value = self._project("value", x, "kv_heads", c.kv_heads).swapaxes(1, 2)
        if c.qk_norm:
            query, key = Norm(c, name="query_norm")(query), Norm(c, name="key_norm")(key)
        frequency = jnp.asarray(frequencies(c, self.window))
        query, key, value = (array.astype(cache_dtype(c)) for array in (query, key, value))
        query = rotate(query, positions, frequency)
        key = rotate(key, positions, frequency).swapaxes(1, 2)
        query = constrain(query, "batch", "length", "heads", "head_width")
        key = constrain(key, "batch", "kv_heads", "length", "head_width")
        value = constrain(value, "batch", "kv_heads", "length", "head_width")
        if past and past[-1].at is not None:
            *before, cache = past
            own = cache.write(key, value)
        else:
            before, own = past, Block(key, value, mask, positions)
        read = attend(
            query,
            positions,
            [*before, own],
            scale=c.attention_scale or 1 / math.sqrt(c.head_width),
            softcap=c.attention_softcap,
            window=self.window,
        )
        # As one flat product: the backend would otherwise move the weights into another layout at every step.
        flat = read.astype(c.dtype).reshape(*read.shape[:2], c.heads * c.head_width)
        return self.times("out", flat, wo.reshape(-1, c.width)), (own.key, own.value)

    def _project(self, name: str, x: Float[Array, "n t d"], axis: str, heads: int) -> Float[Array, "n t x h"]:
        c = self.config
        matrix = self.weight(name, (c.width, heads, c.head_width), ("embed", axis, "head_width"), _fan_in_split)
        projected = self.times(name, x, matrix)
        if not c.qkv_bias:
            return projected
        return projected + self.weight(f"{name}_bias", (heads, c.head_width), (axis, "head_width"), _zeros)[None, None]


class MLP(Weights):
    """SwiGLU or GeGLU (Shazeer 2020)."""

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        c = self.config
        gate = self.weight("gate", (c.width, c.mlp), ("embed", "mlp"), _fan_in)
        up = self.weight("up", (c.width, c.mlp), ("embed", "mlp"), _fan_in)
        down = self.weight("down", (c.mlp, c.width), ("mlp", "embed"), _fan_in)
        activate = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}[c.activation]  # JAX's gelu is the tanh approximation
        hidden = activate(self.times("gate", x, gate)) * self.times("up", x, up)
        return self.times("down", constrain(hidden, "batch", "length", "mlp"), down)
