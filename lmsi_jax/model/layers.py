"""The layers. A weight is one line: name, shape, logical axes, initialiser."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmsi_jax.core.config import ModelConfig
from lmsi_jax.model.attention import Block, attend, rotate
from lmsi_jax.sharding import constrain

KeyValue = tuple[Float[Array, "n k t h"], Float[Array, "n k t h"]]  # as a Block has them

_fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
# The projections that write to the residual stream have two (or three) input axes, or follow a nonlinearity.
_fan_in_heads = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=(0, 1), out_axis=2)
_fan_in_split = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))


class Weights(nn.Module):
    """A module that declares weights in the config's dtype and hands them out in the compute dtype."""

    config: ModelConfig

    def weight(self, name: str, shape: tuple[int, ...], axes: tuple[str, ...], init) -> jax.Array:
        partitioned = nn.with_logical_partitioning(init, axes)
        value = self.param(name, partitioned, shape, jnp.dtype(self.config.param_dtype))
        return jnp.asarray(value, self.config.dtype)


class RMSNorm(Weights):
    """Root-mean-square norm (Zhang and Sennrich 2019), computed in float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        scale = self.weight("scale", (x.shape[-1],), ("norm",), nn.initializers.ones)
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.config.norm_epsilon)
        return normed.astype(x.dtype) * scale[None, None, :]


class Attention(Weights):
    """Grouped-query attention over past blocks and the tokens at hand."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t d"], positions: Int[Array, "n t"], mask: Array, past: list[Block]
    ) -> tuple[Float[Array, "n t d"], KeyValue]:
        c = self.config
        wq = self.weight("query", (c.width, c.heads, c.head_width), ("embed", "heads", "head_width"), _fan_in_split)
        wk = self.weight("key", (c.width, c.kv_heads, c.head_width), ("embed", "kv_heads", "head_width"), _fan_in_split)
        wv = self.weight("value", (c.width, c.kv_heads, c.head_width), ("embed", "kv_heads", "head_width"), _fan_in_split)
        wo = self.weight("out", (c.heads, c.head_width, c.width), ("heads", "head_width", "embed"), _fan_in_heads)
        query = rotate(jnp.einsum("ntd,dxh->ntxh", x, wq), positions, c.rope_base)
        key = rotate(jnp.einsum("ntd,dkh->ntkh", x, wk), positions, c.rope_base)
        key = key.swapaxes(1, 2)
        value = jnp.einsum("ntd,dkh->nkth", x, wv)
        query = constrain(query, "batch", "length", "heads", "head_width")
        key = constrain(key, "batch", "kv_heads", "length", "head_width")
        value = constrain(value, "batch", "kv_heads", "length", "head_width")
        read = attend(query, [*past, Block(key, value, mask)])
        return jnp.einsum("ntxh,xhd->ntd", read, wo), (key, value)


class MLP(Weights):
    """SwiGLU (Shazeer 2020)."""

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        c = self.config
        gate = self.weight("gate", (c.width, c.mlp), ("embed", "mlp"), _fan_in)
        up = self.weight("up", (c.width, c.mlp), ("embed", "mlp"), _fan_in)
        down = self.weight("down", (c.mlp, c.width), ("mlp", "embed"), _fan_in)
        hidden = jax.nn.silu(jnp.einsum("ntd,df->ntf", x, gate)) * jnp.einsum("ntd,df->ntf", x, up)
        return jnp.einsum("ntf,fd->ntd", constrain(hidden, "batch", "length", "mlp"), down)
