"""A decoder-only transformer as data: shapes, parameters and one pure function.

Flax Linen declares the weights in here and nowhere else; to the rest of the package a model is a nested dict of
arrays. A run holds several of one architecture at once: base, round r, reference.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lmsi_jax.core.config import MeshConfig, ModelConfig
from lmsi_jax.model.attention import Block
from lmsi_jax.model.layers import MLP, Attention, KeyValue, Norm, Weights
from lmsi_jax.model.lora import Adapted
from lmsi_jax.model.quantize import Quantized
from lmsi_jax.sharding import constrain, make_mesh, use_mesh

Params = dict[str, Any]


# What of a layer's activations is kept for the backward pass; the rest is computed again.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Transformer(Weights):
    """Embedding, layers of attention and MLP, final norm, logits."""

    remat: str = "none"

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, mask: Array, past: list[list[Block]]) -> tuple[Array, list[KeyValue]]:
        c = self.config
        normal = nn.initializers.normal(1 / math.sqrt(c.width))
        embedding = self.weight("embedding", (c.vocab, c.width), ("vocab", "embed"), normal)
        # Whole rows before they are looked up: from parts of rows XLA would rematerialise the lookup in full.
        embedding = constrain(embedding, "vocab", None)
        x = embedding[tokens]
        x = constrain(x * math.sqrt(c.width) if c.scaled_embedding else x, "batch", "length", None)
        new_kv = []
        for i in range(c.layers):
            layer = functools.partial(Transformer._layer, i=i)
            if self.remat != "none":
                layer = nn.remat(layer, policy=REMAT[self.remat])
            x, kv = layer(self, x, positions, mask, past[i] if past else [])
            new_kv.append(kv)
        x = Norm(c, name="final_norm")(x)
        table = embedding
        if not c.tied_embedding:
            table = self.weight("unembedding", (c.vocab, c.width), ("vocab", "embed"), normal)
        logits = jnp.einsum("ntd,vd->ntv", x, table, preferred_element_type=jnp.float32)
        if c.logit_softcap:
            logits = c.logit_softcap * jnp.tanh(logits / c.logit_softcap)
        return constrain(logits, "batch", "length", "vocab"), new_kv

    def _layer(self, x: Array, positions: Array, mask: Array, past: list[Block], i: int) -> tuple[Array, KeyValue]:
        """Attention and MLP, each on a normed input, added to the residual stream `x`."""
        c = self.config
        normed = Norm(c, name=f"attention_norm_{i}")(x)
        attention, mlp = Attention(c, c.windows[i] if c.windows else 0, name=f"attention_{i}"), MLP(c, name=f"mlp_{i}")
        read, kv = attention(normed, positions, mask, past)
        if c.post_norms:
            read = Norm(c, name=f"attention_post_norm_{i}")(read)
        if c.parallel:
            return constrain(x + read + mlp(normed), "batch", "length", None), kv
        x = constrain(x + read, "batch", "length", None)
        written = mlp(Norm(c, name=f"mlp_norm_{i}")(x))
        if c.post_norms:
            written = Norm(c, name=f"mlp_post_norm_{i}")(written)
        return constrain(x + written, "batch", "length", None), kv


def _boxed_init(config: ModelConfig, key: Key[Array, ""]) -> Params:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Transformer(config).init(key, tokens, tokens, jnp.ones((1, 1, 1), bool), [])["params"]


def abstract(config: ModelConfig) -> tuple[Params, Params]:
    """Shapes and logical axes of every parameter; no arrays are made."""
    return jax.tree.map(lambda shape: shape, _abstract(config)[0]), dict(_abstract(config)[1])


@functools.cache
def _abstract(config: ModelConfig) -> tuple[Params, Params]:
    with use_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        boxed = jax.eval_shape(lambda key: _boxed_init(config, key), jax.random.key(0))

    def split(get):
        return jax.tree.map(get, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))

    return split(lambda box: box.value), split(lambda box: box.names)


def init(config: ModelConfig, key: Key[Array, ""]) -> Params:
    """Random parameters. Jit it with `out_shardings`, so that nothing unsharded ever exists."""
    return nn.unbox(_boxed_init(config, key))


def count_params(config: ModelConfig) -> int:
    """Number of parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(config)[0]))


def forward(
    config: ModelConfig,
    params: Params | Quantized | Adapted,
    tokens: Int[Array, "n t"],
    positions: Int[Array, "n t"],
    mask: Bool[Array, "n t t"],
    past: list[list[Block]] | None = None,
    remat: str = "none",
) -> tuple[Float[Array, "n t v"], list[KeyValue]]:
    """Logits of the next token at each position, and the new keys and values of each layer.

    `mask[n, i, j]`: may token i look at token j of this call (causality and document borders). `past[layer]`: blocks
    computed earlier, seen by all tokens within their own masks. The caller stores the returned keys and values where it
    wants them; where the last block of a layer is a cache to write into (`Block.at`), that cache is returned. `remat` says
    what training keeps for its backward pass: all ("none"), the products ("dots"), or a layer's input alone ("full").
    """
    variables = {"params": params} if isinstance(params, dict) else params.variables
    output: Any = Transformer(config, remat).apply(variables, tokens, positions, mask, past or [])
    return output
