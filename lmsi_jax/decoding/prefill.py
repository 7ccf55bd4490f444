"""Prefill of the keys and values that paths share: the prefix (such as the few-shot prompt) and the questions after it."""

import functools
import json
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.flax
from etils import epath
from flax import struct
from jaxtyping import Array, Float, Int

from lmsi_jax.core.files import write_bytes
from lmsi_jax.model import transformer
from lmsi_jax.model.attention import KVBlock, causal
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.transformer import AnyParams
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import constrain, jit, sharding

Cache = list[tuple[Float[Array, "_ k _ h"], Float[Array, "_ k _ h"]]]  # (keys, values) of each layer, shaped as in a KVBlock
CHUNK = 1024  # tokens of a prefix per prefill chunk: the memory of attention scores is proportional to it


@struct.dataclass
class Prefix:
    """The KV cache of a prefix that all prompts of a call share, such as the exemplars."""

    cache: Cache  # rows = 1
    length: Int[Array, ""]  # tokens

    def blocks(self) -> list[list[KVBlock]]:
        """Return, for each layer, the blocks that attention reads: one, or none if the prefix is empty."""
        slots = jnp.arange(self.cache[0][0].shape[2])[None, :]
        return [[KVBlock(k, v, slots < self.length, slots)] if slots.size else [] for k, v in self.cache]


def prefill_prefix(mesh: Mesh, config: ModelConfig, params: AnyParams, tokens: Sequence[int], chunk: int = CHUNK) -> Prefix:
    """Prefill a prefix, `chunk` tokens at a time; each chunk attends to those before it."""
    rows = np.tile(np.asarray(tokens, np.int32), (mesh.size("batch"), 1))  # identical rows, one per shard of the batch axis
    cache = _empty(config)
    for start in range(0, len(tokens), chunk):
        placed = jax.device_put(rows[:, start : start + chunk], sharding(mesh, "batch", None))
        cache = prefill_chunk(config, params, cache, placed)
    return Prefix(cache, jax.device_put(np.int32(len(tokens)), sharding(mesh)))


@functools.partial(jit, static_argnums=(0,))
def _empty(config: ModelConfig) -> Cache:
    shape = (1, config.kv_heads, 0, config.head_width)
    empty = constrain(jnp.zeros(shape, transformer.cache_dtype(config)), None, "kv_heads", "length", "head_width")
    return [(empty, empty)] * config.layers


def save_prefix(file: os.PathLike | str, prefix: Prefix) -> None:
    """Write the KV cache of a prefix as safetensors, so that a later process can load it with `load_prefix`."""
    tensors = {f"{kind}_{i}": array for i, layer in enumerate(prefix.cache) for kind, array in zip("kv", layer, strict=True)}
    write_bytes(file, safetensors.flax.save(tensors, {"length": str(int(prefix.length))}))


def load_prefix(file: os.PathLike | str, mesh: Mesh) -> Prefix:
    """Load a prefix from the file that `save_prefix` wrote and put it on the devices of a mesh."""
    content = epath.Path(file).read_bytes()
    place = sharding(mesh, None, "kv_heads", "length", "head_width")
    tensors = {name: jax.device_put(array, place) for name, array in safetensors.flax.load(content).items()}
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    layers = range(len(tensors) // 2)
    length = np.int32(header["__metadata__"]["length"])
    return Prefix([(tensors[f"k_{i}"], tensors[f"v_{i}"]) for i in layers], jax.device_put(length, sharding(mesh)))


@functools.partial(jit, static_argnums=(0,))
def prefill_chunk(config: ModelConfig, params: AnyParams, before: Cache, tokens: Int[Array, "n t"]) -> Cache:
    """Prefill the next `t` tokens of a prefix and append them to the cache `before`. All rows of `tokens` are identical."""
    start, (positions, mask) = before[0][0].shape[2], causal(*tokens.shape)
    _, cache = transformer.hidden(config, params, tokens, start + positions, mask, Prefix(before, jnp.int32(start)).blocks())
    # Stacked into one array, so that replicating the first row takes one collective instead of two per layer.
    stacked = jnp.stack([jnp.stack([k[0], v[0]]) for k, v in cache])
    shared = constrain(stacked, None, None, "kv_heads", "length", "head_width")
    after = [(keys[None], values[None]) for keys, values in shared]
    append = lambda old, new: jnp.concatenate([old, new], axis=2)  # noqa: E731
    return [(append(k, new_k), append(v, new_v)) for (k, v), (new_k, new_v) in zip(before, after, strict=True)]


def padded_lengths(slots: int) -> list[int]:
    """Return the lengths that questions are padded to in prefill: about 1/4, 1/2 and all of `slots`, multiples of 32.

    `slots` is the length of the longest question. Prefill compiles one program for each length.
    """
    return sorted({-(-slots // (32 * divisor)) * 32 for divisor in (4, 2, 1)})


@functools.partial(jit, static_argnums=(0, 1))
def prefill_questions(
    config: ModelConfig,
    slots: int,
    params: AnyParams,
    prefix: Prefix,
    tokens: Int[Array, "b s"],
    length: Int[Array, " b"],
) -> Cache:
    """Return the KV caches of `b` questions of at most `s` tokens behind `prefix`, padded to `slots` cache slots.

    Question i has `length[i]` tokens. No token attends to the padding after them, in prefill or while decoding.
    """
    s, (positions, mask) = tokens.shape[1], causal(*tokens.shape)
    inside = jnp.arange(s)[None, :] < length[:, None]
    mask = mask & inside[:, None, :] | jnp.eye(s, dtype=bool)[None]
    _, cache = transformer.hidden(config, params, tokens, prefix.length + positions, mask, prefix.blocks())
    return jax.tree.map(lambda array: jnp.pad(array, ((0, 0), (0, 0), (0, slots - s), (0, 0))), cache)
