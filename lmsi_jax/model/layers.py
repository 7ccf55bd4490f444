"""The layers. Each weight is declared in one call: name, shape, logical axes, initialiser, summed axes, Hugging Face name."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmsi_jax.model.attention import KVBlock, attend, rotate
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.lora import ADAPTERS
from lmsi_jax.model.products import project
from lmsi_jax.model.quantize import SCALES
from lmsi_jax.model.rope import frequencies
from lmsi_jax.model.spec import Declared, WeightSpec
from lmsi_jax.sharding.rules import constrain, current_mesh

ACTIVATIONS = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}  # JAX's gelu is the tanh approximation
SCORES = 2**26  # attention scores that a device computes at a time in training: 256 MiB
KeyValue = tuple[Float[Array, "n k s h"], Float[Array, "n k s h"]]  # keys and values, shaped as in a KVBlock

fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
# The projections that write to the residual stream have two (or three) input axes, or follow a nonlinearity.
_fan_in_heads = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2)
_fan_in_split = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
_zeros, _ones = nn.initializers.zeros, nn.initializers.ones


def cache_dtype(config: ModelConfig) -> jnp.dtype:
    """Return the dtype of keys and values."""
    return jnp.dtype(config.dtype if config.cache_dtype == "compute" else config.cache_dtype)


class Weights(nn.Module):
    """A module that declares weights in `param_dtype` and returns them in the compute dtype."""

    config: ModelConfig
    prefix: str = dataclasses.field(default="", kw_only=True)  # prefix of its weights' names in a Hugging Face folder

    def weight(
        self,
        name: str,
        shape: tuple[int, ...],
        axes: tuple[str, ...],
        init: Callable[..., Any],
        summed: tuple[int, ...],
        file_name: str,
        *,
        is_table: bool = False,
    ) -> jax.Array:
        """Declare a weight (see model/spec.py for the arguments) and return it in the compute dtype, dequantised if int8."""
        if self.has_variable("params", name):  # `param` would trace the initialiser of each weight every time
            value: Any = nn.unbox(self.get_variable("params", name))
        else:
            spec = WeightSpec(axes, summed, self.prefix + file_name, is_table)
            value = self.param(name, lambda *args: Declared(init(*args), spec), shape, jnp.dtype(self.config.param_dtype))
        if self.has_variable(SCALES, name):
            value = value * self.get_variable(SCALES, name)
        return jnp.asarray(value, self.config.dtype)

    @property
    def sum_dtype(self) -> jnp.dtype | None:
        """The dtype of the products' sums before they are rounded to the compute dtype; None = the compute dtype."""
        return None if self.config.sum_dtype == "compute" else jnp.dtype(self.config.sum_dtype)

    def times(self, name: str, x: Float[Array, "n t i"], matrix: Float[Array, "i *o"]) -> Float[Array, "n t *o"]:
        """Multiply `x` by `matrix`, the weight `name`, and add the product with its low-rank adapter if it has one.

        The sum is rounded once, to the dtype of `x`.
        """

        if not self.has_variable(ADAPTERS, name):
            return project(x, matrix, self.sum_dtype)
        a, b = (jnp.asarray(self.get_variable(ADAPTERS, name)[part], x.dtype) for part in "ab")
        wide = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        low = project(x, a.reshape(x.shape[-1], -1), self.sum_dtype)
        return (wide("nti,i...->nt...", x, matrix) + wide("ntr,r...->nt...", low, b)).astype(x.dtype)


class Norm(Weights):
    """Root-mean-square norm (Zhang and Sennrich 2019) or layer norm without bias, over the last axis, in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        c = self.config
        plus_one = c.norm == "rms_plus_one"
        scale = self.weight("scale", (x.shape[-1],), ("norm",), _zeros if plus_one else _ones, (), "weight")
        scale = scale.reshape(*[1] * (x.ndim - 1), -1)
        wide = x.astype(jnp.float32)
        if c.norm == "layer":
            wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + c.norm_epsilon)
        return (normed * (1 + scale.astype(jnp.float32))).astype(x.dtype) if plus_one else normed.astype(x.dtype) * scale


class Attention(Weights):
    """Grouped-query attention over past blocks and the tokens of this call."""

    window: int = 0  # sliding window in tokens; 0 = full attention
    recompute: bool = False  # the backward pass computes scores again where there are more than SCORES

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t d"], positions: Int[Array, "n t"], mask: Array, past: list[KVBlock]
    ) -> tuple[Float[Array, "n t d"], KeyValue]:
        c = self.config
        axes = ("heads", "head_width", "embed")
        wo = self.weight("out", (c.heads, c.head_width, c.width), axes, _fan_in_heads, (0, 1), "o_proj.weight")
        query = self._project("query", x, "heads", c.heads)
        key = self._project("key", x, "kv_heads", c.kv_heads)
        value = self._project("value", x, "kv_heads", c.kv_heads).swapaxes(1, 2)
        if c.qk_norm:
            query = Norm(c, name="query_norm", prefix=f"{self.prefix}q_norm.")(query)
            key = Norm(c, name="key_norm", prefix=f"{self.prefix}k_norm.")(key)
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
            before, own = past, KVBlock(key, value, mask, positions)
        read = attend(
            query,
            positions,
            [*before, own],
            scale=c.attention_scale or 1 / math.sqrt(c.head_width),
            softcap=c.attention_softcap,
            window=self.window,
            at_a_time=self._queries_at_a_time(len(query), [*before, own]) if self.recompute else 0,
        )
        # One flat matrix product, as the backend would otherwise change the weights' layout at every step.
        flat = read.astype(c.dtype).reshape(*read.shape[:2], c.heads * c.head_width)
        return self.times("out", flat, wo.reshape(-1, c.width)), (own.key, own.value)

    def _queries_at_a_time(self, rows: int, blocks: list[KVBlock]) -> int:
        """Return of how many queries of a row a device has at most SCORES scores."""
        mesh = current_mesh()
        of_query = rows * self.config.heads * sum(block.key.shape[2] for block in blocks)
        return max(SCORES * mesh.size("batch") * mesh.size("heads") // of_query, 1)

    def _project(self, name: str, x: Float[Array, "n t d"], axis: str, heads: int) -> Float[Array, "n t x h"]:
        c = self.config
        shape, axes, file_name = (c.width, heads, c.head_width), ("embed", axis, "head_width"), f"{name[0]}_proj"
        matrix = self.weight(name, shape, axes, _fan_in_split, (0,), f"{file_name}.weight")
        projected = self.times(name, x, matrix)
        if not c.qkv_bias:
            return projected
        bias = self.weight(f"{name}_bias", shape[1:], axes[1:], _zeros, (), f"{file_name}.bias")
        return projected + bias[None, None]


class MLP(Weights):
    """SwiGLU or GeGLU (Shazeer 2020)."""

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        c = self.config
        gate = self.weight("gate", (c.width, c.mlp), ("embed", "mlp"), fan_in, (0,), "gate_proj.weight")
        up = self.weight("up", (c.width, c.mlp), ("embed", "mlp"), fan_in, (0,), "up_proj.weight")
        down = self.weight("down", (c.mlp, c.width), ("mlp", "embed"), fan_in, (0,), "down_proj.weight")
        hidden = ACTIVATIONS[c.activation](self.times("gate", x, gate)) * self.times("up", x, up)
        return self.times("down", constrain(hidden, "batch", "length", "mlp"), down)
