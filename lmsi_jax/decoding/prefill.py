"""The keys and values of what paths have in common: the few-shot prompt, and each question behind it."""

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

from lmsi_jax import model
from lmsi_jax.core.config import ModelConfig
from lmsi_jax.core.files import write_bytes
from lmsi_jax.model import Block
from lmsi_jax.sharding import Mesh, constrain, jit, sharding

Cache = list[tuple[Float[Array, "_ k _ h"], Float[Array, "_ k _ h"]]]  # one (keys, values) a layer, as in a Block
CHUNK = 1024  # tokens of a few-shot prompt that are computed at a time: its scores take memory in proportion


@struct.dataclass
class Prompt:
    """The few-shot prompt that all questions share."""

    cache: Cache  # rows = 1
    length: Int[Array, ""]  # tokens

    def blocks(self) -> list[list[Block]]:
        """What each layer reads of it."""
        slots = jnp.arange(self.cache[0][0].shape[2])[None, :]
        return [[Block(k, v, slots < self.length, slots)] if slots.size else [] for k, v in self.cache]


def prefill_prompt(
    mesh: Mesh, config: ModelConfig, params: model.Params | model.Quantized, tokens: Sequence[int], chunk: int = CHUNK
) -> Prompt:
    """The few-shot prompt. A long one is computed in chunks, each behind those before it."""
    rows = np.tile(np.asarray(tokens, np.int32), (mesh.size("batch"), 1))  # one for each part of the batch axis, all alike
    cache = _nothing(config)
    for start in range(0, len(tokens), chunk):
        placed = jax.device_put(rows[:, start : start + chunk], sharding(mesh, "batch", None))
        cache = prefill_chunk(config, params, cache, placed)
    return Prompt(cache, jax.device_put(np.int32(len(tokens)), sharding(mesh)))


@functools.partial(jit, static_argnums=(0,))
def _nothing(config: ModelConfig) -> Cache:
    shape = (1, config.kv_heads, 0, config.head_width)
    empty = constrain(jnp.zeros(shape, model.cache_dtype(config)), None, "kv_heads", "length", "head_width")
    return [(empty, empty)] * config.layers


def save_prompt(file: os.PathLike | str, prompt: Prompt) -> None:
    """Write a few-shot prompt's keys and values, so that a later process need not compute them."""
    tensors = {f"{kind}_{i}": array for i, layer in enumerate(prompt.cache) for kind, array in zip("kv", layer, strict=True)}
    write_bytes(file, safetensors.flax.save(tensors, {"length": str(int(prompt.length))}))


def load_prompt(file: os.PathLike | str, mesh: Mesh) -> Prompt:
    """What `save_prompt` wrote, onto the devices of a mesh."""
    content = epath.Path(file).read_bytes()
    place = sharding(mesh, None, "kv_heads", "length", "head_width")
    tensors = {name: jax.device_put(array, place) for name, array in safetensors.flax.load(content).items()}
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    layers = range(len(tensors) // 2)
    length = np.int32(header["__metadata__"]["length"])
    return Prompt([(tensors[f"k_{i}"], tensors[f"v_{i}"]) for i in layers], jax.device_put(length, sharding(mesh)))


@functools.partial(jit, static_argnums=(0,))
def prefill_chunk(
    config: ModelConfig, params: model.Params | model.Quantized, before: Cache, tokens: Int[Array, "n t"]
) -> Cache:
    """The cache of a prompt's first tokens, with that of the next `t` behind it. Every row of `tokens` is the same."""
    (n, t), start = tokens.shape, before[0][0].shape[2]
    positions = start + jnp.broadcast_to(jnp.arange(t)[None, :], (n, t))
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((t, t), bool))[None], (n, t, t))
    _, cache = model.forward(config, params, tokens, positions, mask, Prompt(before, jnp.int32(start)).blocks())
    # One array, so that handing the first row to all devices is one collective and not two a layer.
    stacked = jnp.stack([jnp.stack([k[0], v[0]]) for k, v in cache])
    shared = constrain(stacked, None, None, "kv_heads", "length", "head_width")
    after = [(keys[None], values[None]) for keys, values in shared]
    append = lambda old, new: jnp.concatenate([old, new], axis=2)  # noqa: E731
    return [(append(k, new_k), append(v, new_v)) for (k, v), (new_k, new_v) in zip(before, after, strict=True)]


def widths(slots: int) -> list[int]:
    """In how many slots questions are prefilled of which the longest takes `slots`: one program each."""
    return sorted({-(-slots // (32 * part)) * 32 for part in (4, 2, 1)})


@functools.partial(jit, static_argnums=(0, 1))
def prefill_questions(
    config: ModelConfig,
    slots: int,
    params: model.Params | model.Quantized,
    prompt: Prompt,
    tokens: Int[Array, "b s"],
    length: Int[Array, " b"],
) -> Cache:
    """The caches of `b` questions of at most `s` tokens, in `slots` slots; those from `length` on hold nothing of use."""
    b, s = tokens.shape
    positions = jnp.broadcast_to(prompt.length + jnp.arange(s)[None, :], (b, s))
    inside = jnp.arange(s)[None, :] < length[:, None]
    mask = jnp.tril(jnp.ones((s, s), bool))[None] & inside[:, None, :] | jnp.eye(s, dtype=bool)[None]
    _, cache = model.forward(config, params, tokens, positions, mask, prompt.blocks())
    return jax.tree.map(lambda array: jnp.pad(array, ((0, 0), (0, 0), (0, slots - s), (0, 0))), cache)
