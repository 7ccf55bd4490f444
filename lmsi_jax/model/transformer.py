"""A decoder-only transformer as pure functions of its parameters.

Flax Linen declares the weights and is used only in `model/`. For the rest of the project a model is a nested dict of arrays,
since a run uses several models of one architecture at once: base, round r, reference.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lmsi_jax.model.attention import KVBlock
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.experts import ROUTING, Experts
from lmsi_jax.model.layers import MLP, Attention, KeyValue, Norm, Weights
from lmsi_jax.model.layers import cache_dtype as cache_dtype
from lmsi_jax.model.lora import Adapted
from lmsi_jax.model.quantize import Quantized
from lmsi_jax.model.spec import Declared
from lmsi_jax.model.stacked import OfLayers, Stacked, period_of
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import Mesh, make_mesh
from lmsi_jax.sharding.rules import constrain, param_shardings, use_mesh, with_shardings

Params = dict[str, Any]
AnyParams = Params | Quantized | Adapted | Stacked  # weights, quantised, with adapters, or with stacked layers
Past = list[list[KVBlock]] | OfLayers | None  # the blocks that each layer attends to; with stacked layers, their fields
NewKeyValues = Any  # of each layer: list[KeyValue], or OfLayers with stacked layers


# Which of a layer's activations are stored for the backward pass; the others are recomputed. "scores" has no entry:
# attention itself recomputes them.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Transformer(Weights):
    """Embedding, layers of attention and MLP, and final norm. A call returns hidden states, which `logits` maps to logits."""

    remat: str = "none"  # see `hidden`

    @nn.compact
    def __call__(
        self,
        inputs: Array,
        positions: Array,
        mask: Array,
        past: list[list[KVBlock]],
        layers: range | None = None,
        *,
        begins: bool = True,
        ends: bool = True,
    ) -> tuple[Array, list[KeyValue]]:
        """Map tokens to hidden states by all layers. A part of the model computes only `layers`.

        It begins with the states `inputs` in place of tokens unless it `begins`, and has no final norm unless it `ends`.
        `past` has the blocks of these layers.
        """
        c = self.config
        x, new_kv = self._embedded(inputs) if begins else inputs, []
        for place, i in enumerate(range(c.layers) if layers is None else layers):
            layer = functools.partial(Transformer._layer, i=i)
            if self.remat in REMAT:
                layer = nn.remat(layer, policy=REMAT[self.remat])
            x, kv = layer(self, x, positions, mask, past[place] if past else [])
            new_kv.append(kv)
        if ends:
            x = Norm(c, name="final_norm", prefix="model.norm.")(x)
        if self.is_initializing():
            self.logits(x)  # declares the unembedding
        return x, new_kv

    def _embedded(self, tokens: Array) -> Array:
        # Gather full rows before the lookup: with sharded rows XLA would replicate the result of the lookup.
        c, embedding = self.config, constrain(self._embedding(), "vocab", None)
        x = embedding[tokens]
        return constrain(x * math.sqrt(c.width) if c.scaled_embedding else x, "batch", "length", None)

    def logits(self, x: Float[Array, "n t d"]) -> Float[Array, "n t v"]:
        """Return the logits (float32) of hidden states."""
        c = self.config
        tied = c.tied_embedding
        table = constrain(self._embedding(), "vocab", None) if tied else self._table("unembedding", "lm_head.weight")
        logits = jnp.einsum("ntd,vd->ntv", x, table, preferred_element_type=jnp.float32)
        if c.base_width:
            logits = logits * math.sqrt(c.base_width / c.width)
        if c.logit_softcap:
            logits = c.logit_softcap * jnp.tanh(logits / c.logit_softcap)
        return constrain(logits, "batch", "length", "vocab")

    def _embedding(self) -> Float[Array, "v d"]:
        return self._table("embedding", "model.embed_tokens.weight")

    def _table(self, name: str, file_name: str) -> Float[Array, "v d"]:
        c = self.config
        normal = nn.initializers.normal(1 / math.sqrt(c.width))
        return self.weight(name, (c.vocab, c.width), ("vocab", "embed"), normal, (1,), file_name, is_table=True)

    def _layer(self, x: Array, positions: Array, mask: Array, past: list[KVBlock], i: int) -> tuple[Array, KeyValue]:
        """Add attention and MLP, each of a normalised input, to the residual stream `x`."""
        c, prefix = self.config, f"model.layers.{i}."

        def norm(name: str, file_name: str) -> Norm:
            return Norm(c, name=f"{name}_{i}", prefix=f"{prefix}{file_name}.")

        normed = norm("attention_norm", "input_layernorm")(x)
        window = c.windows[i] if c.windows else 0
        recompute = self.remat != "none"
        attention = Attention(c, window=window, recompute=recompute, name=f"attention_{i}", prefix=f"{prefix}self_attn.")
        kind, mlp_name = (Experts, f"experts_{i}") if i in c.sparse_layers else (MLP, f"mlp_{i}")
        mlp = kind(c, name=mlp_name, prefix=f"{prefix}mlp.")
        read, kv = attention(normed, positions, mask, past)
        if c.post_norms:
            read = norm("attention_post_norm", "post_attention_layernorm")(read)
        if c.parallel:
            return constrain(x + read + mlp(normed), "batch", "length", None), kv
        x = constrain(x + read, "batch", "length", None)
        written = mlp(norm("mlp_norm", "pre_feedforward_layernorm" if c.post_norms else "post_attention_layernorm")(x))
        if c.post_norms:
            written = norm("mlp_post_norm", "post_feedforward_layernorm")(written)
        return constrain(x + written, "batch", "length", None), kv


def _boxed_init(config: ModelConfig, key: Key[Array, ""]) -> Params:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Transformer(config).init(key, tokens, tokens, jnp.ones((1, 1, 1), bool), [])["params"]


def abstract(config: ModelConfig) -> tuple[Params, Params]:
    """Return the shape and dtype, and the logical axes, of every parameter, without creating arrays."""
    shapes, specs = _abstract(config)
    return jax.tree.map(lambda shape: shape, shapes), jax.tree.map(lambda spec: spec.axes, specs)


def specs(config: ModelConfig) -> Params:
    """Return the WeightSpec of every parameter."""
    return jax.tree.map(lambda spec: spec, _abstract(config)[1])


@functools.cache
def _abstract(config: ModelConfig) -> tuple[Params, Params]:
    with use_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        boxed = jax.eval_shape(lambda key: _boxed_init(config, key), jax.random.key(0))

    def split(get: Callable[[Declared], Any]) -> Params:
        return jax.tree.map(get, boxed, is_leaf=lambda leaf: isinstance(leaf, Declared))

    return split(lambda box: box.value), split(lambda box: box.spec)


def sharded(mesh: Mesh, config: ModelConfig) -> Params:
    """Return the shape, dtype and sharding on a mesh of every parameter, without creating arrays."""
    shapes, axes = abstract(config)
    return with_shardings(shapes, param_shardings(mesh, shapes, axes))


def init(config: ModelConfig, key: Key[Array, ""]) -> Params:
    """Return random parameters. Jit it with `out_shardings`, so that no unsharded parameter is ever created."""
    return nn.unbox(_boxed_init(config, key))


def init_sharded(mesh: Mesh, config: ModelConfig, key: Key[Array, ""]) -> Params:
    """Return random parameters on a mesh; no device ever stores more than its shard."""
    return jax.jit(functools.partial(init, config), out_shardings=param_shardings(mesh, *abstract(config)))(key)


def count_params(config: ModelConfig) -> int:
    """Return the number of scalar parameters of a model."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(config)[0]))


def count_active_params(config: ModelConfig) -> int:
    """Return the number of scalar parameters that one token uses: all but those of the experts that it does not."""
    unused = max(config.experts.count - config.experts.per_token, 0)
    return count_params(config) - len(config.sparse_layers) * unused * 3 * config.width * config.expert_mlp


def parameters_text(config: ModelConfig) -> str:
    """Return the number of parameters in words, and for a model with experts how many of them a token uses."""
    total, active = count_params(config), count_active_params(config)
    return f"{total:,} parameters" + (f" ({active:,} for each token)" if active < total else "")


def hidden(
    config: ModelConfig,
    params: AnyParams,
    tokens: Int[Array, "n t"],
    positions: Int[Array, "n t"],
    mask: Bool[Array, "n t t"],
    past: Past = None,
    remat: str = "none",
) -> tuple[Float[Array, "n t d"], NewKeyValues]:
    """Return the hidden state at each position after the final norm, and the new keys and values of each layer.

    `mask[n, i, j]`: whether token i may attend to token j of this call (causality and document boundaries). `past[layer]`:
    blocks computed earlier, which all tokens attend to within the blocks' masks. The caller stores the returned keys and
    values. If the last block of a layer is a cache (`KVBlock.at`), the updated cache is returned instead. `remat`: the
    activations that training stores for the backward pass: all ("none"), all but attention scores ("scores"), the matrix
    products ("dots"), or only each layer's input ("full").
    """
    if isinstance(params, Stacked):
        states, new_kv, _ = _scanned(Transformer(config, remat), params, tokens, positions, mask, past)
        return states, new_kv
    output: Any = Transformer(config, remat).apply(_variables(params), tokens, positions, mask, past or [])
    return output


def routed_hidden(
    config: ModelConfig,
    params: AnyParams,
    tokens: Int[Array, "n t"],
    positions: Int[Array, "n t"],
    mask: Bool[Array, "n t t"],
    past: Past = None,
    remat: str = "none",
) -> tuple[Float[Array, "n t d"], list[Float[Array, "n t e"]]]:
    """Return the hidden states as `hidden` does, and the logits (float32) of the router of each layer with experts."""
    model = Transformer(config, remat)
    if isinstance(params, Stacked):
        states, _, routing = _scanned(model, params, tokens, positions, mask, past)
        return states, routing
    (states, _), recorded = model.apply(_variables(params), tokens, positions, mask, past or [], mutable=[ROUTING])
    return states, [recorded[ROUTING][f"experts_{i}"]["logits"][0] for i in config.sparse_layers]


def logits(config: ModelConfig, params: AnyParams, states: Float[Array, "n t d"]) -> Float[Array, "n t v"]:
    """Return the logits (float32) of the next token from the hidden states that `hidden` returns."""
    output: Any = Transformer(config).apply(_variables(params), states, method="logits")
    return output


def forward(config: ModelConfig, params: AnyParams, *inputs: Any, **options: Any) -> tuple[Float[Array, "n t v"], NewKeyValues]:
    """Return the next token's logits at each position, and the new keys and values; the arguments are those of `hidden`."""
    states, new_kv = hidden(config, params, *inputs, **options)
    return logits(config, params, states), new_kv


def _scanned(
    model: Transformer, params: Stacked, tokens: Array, positions: Array, mask: Array, past: Past
) -> tuple[Array, OfLayers, list[Array]]:
    """Return the hidden states, the keys and values, and the routers' logits; the layers of all blocks are compiled once."""
    c, period = model.config, period_of(model.config)
    count, apply = c.layers // period, functools.partial(model.apply, mutable=[ROUTING])
    last = range(count * period, c.layers)  # the layers after the last whole block
    read = past if isinstance(past, OfLayers) else OfLayers([], [])
    assert past is None or past is read, "blocks to attend to must be stacked as the layers are"

    def as_blocks(layers: list[list[tuple[Array, ...]]]) -> list[list[KVBlock]]:
        return [[KVBlock(*fields) for fields in blocks] for blocks in layers]

    def block(x: Array, part: tuple[Params, list[list[tuple[Array, ...]]]]) -> tuple[Array, tuple[list[KeyValue], Any]]:
        layers, own_past = part
        inputs = (x, positions, mask, as_blocks(own_past), range(period))
        (x, kv), recorded = apply({"params": layers}, *inputs, begins=False, ends=False)
        return x, (kv, recorded.get(ROUTING, {}))

    (x, _), _ = apply(params.variables, tokens, positions, mask, [], range(0), ends=False)
    x, (kv, routing) = jax.lax.scan(block, x, (params.blocks, read.blocks))
    (x, kv_of_rest), recorded = apply(params.variables, x, positions, mask, as_blocks(read.rest), last, begins=False)
    places = [(n, i) for n in range(count) for i in range(period)]
    logits = [routing[f"experts_{i}"]["logits"][0][n] for n, i in places if f"experts_{i}" in routing]
    logits += [recorded[ROUTING][f"experts_{i}"]["logits"][0] for i in last if i in c.sparse_layers]
    return x, OfLayers(kv, kv_of_rest), logits


def _variables(params: AnyParams) -> Params:
    return {"params": params} if isinstance(params, dict) else params.variables
