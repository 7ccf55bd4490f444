"""One attention function for training, prefill, decoding and shared prefixes.

Queries attend to a list of key/value blocks under one softmax. A block with fewer rows than the queries is shared: block
row i serves the i-th group of consecutive query rows. The keys of a prompt are therefore stored and read once for all the
paths that continue it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from lmsi_jax.model.positions import by_positions
from lmsi_jax.model.products import attention_scores, weighted_values


class KVBlock(struct.PyTreeNode):
    """Keys and values of one layer in cache slots, and the mask of the slots that queries may attend to.

    Axes: k KV heads, s cache slots, h head width. Heads come before slots, so that both products of attention read memory
    in order. `mask` is (rows, slots) if all queries of a row attend to the same slots (a cache), or (rows, t, slots) if each
    of the t queries has its own (the tokens of this call, causal). `positions` are the slots' positions in the text, for
    layers with a sliding window. `mask` and `positions` may have fewer rows than the queries. They are then shared by
    consecutive query rows, as the block's rows are.

    If `at` is set, the block is a cache: the keys and values of the current token are written to slot `at` before attention
    reads it. `mask` and `positions` are those after this write.
    """

    key: Float[Array, "nb k s h"]
    value: Float[Array, "nb k s h"]
    mask: Bool[Array, "nm s"] | Bool[Array, "nm t s"]
    positions: Int[Array, "np s"]
    at: Int[Array, ""] | None = None

    def write(self, key: Float[Array, "nb k 1 h"], value: Float[Array, "nb k 1 h"]) -> "KVBlock":
        """Return the block with the keys and values of one token per row written to slot `at`, the same slot in all rows."""
        at = self.at
        assert at is not None, "the block is not a cache: `at` is not set"
        put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=2)  # noqa: E731
        return self.replace(key=put(self.key, key), value=put(self.value, value))


def causal(rows: int, length: int) -> tuple[Int[Array, "n t"], Bool[Array, "n t t"]]:
    """Return the positions and the mask of unpadded rows in which each token attends to itself and to those before it."""
    positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
    return positions, jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (rows, length, length))


def rotate(
    values: Float[Array, "n t x h"], positions: Int[Array, "n t"], frequency: Float[Array, " half"]
) -> Float[Array, "n t x h"]:
    """Apply the rotary position embedding (Su et al. 2021, arXiv 2104.09864), half-split layout, in float32."""
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency[None, None, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right = jnp.split(values.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return rotated.astype(values.dtype)


def attend(
    query: Float[Array, "n t x h"],
    positions: Int[Array, "n t"],
    blocks: list[KVBlock],
    *,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
    at_a_time: int = 0,
) -> Float[Array, "n t x h"]:
    """Return the softmax attention of `query` (x query heads) over all `blocks`; scores and softmax are in float32.

    With a `window` a query attends only to keys less than `window` positions back. With a `softcap` scores are bounded to
    softcap * tanh(score / softcap). With `at_a_time` only the scores of so many of the t queries are in memory, and the
    backward pass computes them again (Rabe and Staats 2021, arXiv 2112.05682). 0 disables any of them.

    Example: 6 query rows (2 prompts x 3 paths), a task block of 1 row, a question block of 2 rows and a path block of
    6 rows: query row 4 attends to task row 0, question row 1 and path row 4.
    """
    masks = {i: block.mask for i, block in enumerate(blocks) if block.mask.ndim == 3}  # each query has its own

    def read(query: Array, positions: Array, masks: dict[int, Array]) -> Array:
        own = [block.replace(mask=masks.get(i, block.mask)) for i, block in enumerate(blocks)]
        return _attend(query, positions, own, scale, softcap, window)

    return by_positions(read, at_a_time or query.shape[1], query, positions, masks)


def _attend(
    query: Float[Array, "n t x h"],
    positions: Int[Array, "n t"],
    blocks: list[KVBlock],
    scale: float,
    softcap: float,
    window: int,
) -> Float[Array, "n t x h"]:
    n, t, x, h = query.shape
    k = blocks[0].key.shape[1]
    grouped = query.reshape(n, t, k, x // k, h).transpose(0, 2, 3, 1, 4)
    parts = [_read_block(grouped, positions, block, scale, softcap, window) for block in blocks]
    top = functools.reduce(jnp.maximum, [part.top for part in parts])
    shares = [jnp.exp(part.top - top) for part in parts]
    total = functools.reduce(jnp.add, [share * part.total for share, part in zip(shares, parts, strict=True)])
    read = functools.reduce(jnp.add, [share[..., None] * part.read for share, part in zip(shares, parts, strict=True)])
    read = (read / total[..., None]).astype(query.dtype)
    return read.transpose(0, 3, 1, 2, 4).reshape(n, t, x, h)


class _Part(NamedTuple):
    """A block's contribution to the softmax over all blocks, with weights exp(score - top)."""

    top: Float[Array, "n k g t"]  # the largest score
    total: Float[Array, "n k g t"]  # sum of the weights
    read: Float[Array, "n k g t h"]  # sum of the weighted values


def _read_block(
    query: Float[Array, "n k g t h"], positions: Int[Array, "n t"], block: KVBlock, scale: float, softcap: float, window: int
) -> _Part:
    """Attend to one block. Scores stay in the block's layout: only arrays without the slot axis change layout."""
    n, _, g, t, _ = query.shape
    scores = attention_scores(_by_block(query, block), block.key) * scale
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(_seen(block, positions, g, window), scores, jnp.float32(-1e30))
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1))
    weights = jnp.exp(scores - top[..., None])
    read = weighted_values(weights.astype(query.dtype), block.value)
    total = jnp.sum(weights, axis=-1)
    rows = lambda values: _by_row(values[..., None], n, g, t)[..., 0]  # noqa: E731
    return _Part(rows(top), rows(total), _by_row(read, n, g, t))


def _seen(block: KVBlock, positions: Int[Array, "n t"], group: int, window: int) -> Bool[Array, "nb 1 q s"]:
    """Return the slots that each query may attend to; q is 1 if all queries of a block row have the same mask."""
    n, t = positions.shape
    blocks = len(block.key)
    if block.mask.ndim == 2 and len(block.mask) == blocks and not window:
        return block.mask[:, None, None, :]
    mask = block.mask[:, None, :] if block.mask.ndim == 2 else block.mask
    mask = jnp.repeat(mask, n // len(mask), axis=0)
    if window:
        key_positions = jnp.repeat(block.positions, n // len(block.positions), axis=0)
        mask = mask & (positions[:, :, None] - key_positions[:, None, :] < window)
    each = jnp.broadcast_to(mask[:, None], (n, group, t, mask.shape[-1]))
    return each.reshape(blocks, 1, -1, mask.shape[-1])


def _by_block(rows: Float[Array, "n k g t e"], block: KVBlock) -> Float[Array, "nb k q e"]:
    """Put the query rows that share a block row side by side: q runs over (rows per block row, g, t)."""
    n, k, g, t, e = rows.shape
    shared = rows.reshape(len(block.key), -1, k, g, t, e).swapaxes(1, 2)
    return shared.reshape(len(block.key), k, -1, e)


def _by_row(shared: Float[Array, "nb k q e"], n: int, g: int, t: int) -> Float[Array, "n k g t e"]:
    """Invert `_by_block`."""
    blocks, k, _, e = shared.shape
    return shared.reshape(blocks, k, n // blocks, g, t, e).swapaxes(1, 2).reshape(n, k, g, t, e)
