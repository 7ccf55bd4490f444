"""Computes some positions of a sequence at a time, so that large intermediate arrays are never in memory for all of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def by_positions(function: Callable[..., Any], at_a_time: int, *arrays: Any) -> Any:
    """Return `function(*arrays)`, computed for `at_a_time` of the t positions at a time, and again in the backward pass.

    All arrays, also those in containers and those returned, are (rows, t, ...), and a position's result depends on no other
    position of them. The last positions are padded with zeros, whose results are dropped.
    """
    t = jax.tree.leaves(arrays)[0].shape[1]
    if at_a_time >= t:
        return function(*arrays)

    def split(array: Array) -> Array:
        padded = jnp.pad(array, ((0, 0), (0, -t % at_a_time), *[(0, 0)] * (array.ndim - 2)))
        return padded.reshape(len(array), -1, at_a_time, *array.shape[2:]).swapaxes(0, 1)

    def join(array: Array) -> Array:
        rows = array.swapaxes(0, 1)
        return rows.reshape(len(rows), -1, *array.shape[3:])[:, :t]

    again = jax.checkpoint(function, prevent_cse=False)  # a loop keeps the two computations apart
    return jax.tree.map(join, jax.lax.map(lambda part: again(*part), jax.tree.map(split, arrays)))
