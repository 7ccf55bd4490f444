"""One attention for training, prefill, decoding and shared prefixes.

Queries attend to a list of key/value blocks under one softmax. A block with fewer rows than the queries
is shared: block row i serves the i-th group of consecutive query rows. The keys of a prompt are so stored and
read once for all the paths that continue it.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class Block:
    """Keys and values of one layer, with the slots that may be looked at.

    `mask` is (rows, slots) where all queries of a row see the same slots (a cache), or (rows, t, slots) where each
    query has its own (the tokens being computed, causal).
    """

    key: Float[Array, "nb s k h"]
    value: Float[Array, "nb s k h"]
    mask: Bool[Array, "nb s"] | Bool[Array, "nb t s"]


def rotate(values: Float[Array, "n t x h"], positions: Int[Array, "n t"], base: float) -> Float[Array, "n t x h"]:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), half-split layout, in float32."""
    half = values.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency[None, None, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right = jnp.split(values.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.astype(values.dtype)


def attend(query: Float[Array, "n t x h"], blocks: list[Block]) -> Float[Array, "n t x h"]:
    """Softmax attention of `query` over all slots of all `blocks`; scores and softmax in float32.

    Example: 6 query rows (2 prompts x 3 paths), a task block of 1 row, a question block of 2 rows and a path block of
    6 rows: query row 4 sees task row 0, question row 1 and path row 4.
    """
    n, t, x, h = query.shape
    kv_heads = blocks[0].key.shape[2]
    grouped = query.reshape(n, t, kv_heads, x // kv_heads, h)
    scores = [_scores(grouped, block) for block in blocks]
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(query.dtype)
    splits = [int(sum(b.key.shape[1] for b in blocks[:i])) for i in range(1, len(blocks))]
    parts = jnp.split(weights, splits, axis=-1)
    read = [_read(part, block) for part, block in zip(parts, blocks, strict=True)]
    return functools.reduce(jnp.add, read).reshape(n, t, x, h)


def _scores(query: Float[Array, "n t k g h"], block: Block) -> Float[Array, "n k g t s"]:
    n, t, k, g, h = query.shape
    rows = block.key.shape[0]
    shared = query.reshape(rows, n // rows, t, k, g, h)
    scores = jnp.einsum("amtkgh,askh->akmgts", shared, block.key, preferred_element_type=jnp.float32)
    mask = block.mask[:, None, None, None, None, :] if block.mask.ndim == 2 else block.mask[:, None, None, None]
    scores = jnp.where(mask, scores / math.sqrt(h), jnp.float32(-1e30))
    return scores.transpose(0, 2, 1, 3, 4, 5).reshape(n, k, g, t, -1)


def _read(weights: Float[Array, "n k g t s"], block: Block) -> Float[Array, "n t k g h"]:
    n, k, g, t, s = weights.shape
    rows = block.value.shape[0]
    shared = weights.reshape(rows, n // rows, k, g, t, s)
    out = jnp.einsum("amkgts,askh->amtkgh", shared, block.value)
    return out.reshape(n, t, k, g, -1)
