"""Weights in 8 bits for decoding, with a scale for each output channel (compare Dettmers et al. 2022, arXiv 2208.07339)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict[str, Any]
SCALES = "scale"  # the collection of variables that they are to the layers


class Quantized(struct.PyTreeNode):
    """Matrices as int8 and, in a tree with the same names, what to multiply them by; norms and biases as they were."""

    values: Params
    scales: Params

    @property
    def variables(self) -> Params:
        """As the layers look them up."""
        return {"params": self.values, SCALES: self.scales}


# The axes that a product with the weight sums over: what is left has a scale of its own.
SUMMED = {"embedding": (1,), "unembedding": (1,), "out": (0, 1)}


@jax.jit
def quantize(params: Params) -> Quantized:
    """Round each matrix to 255 steps of the largest value of each output channel."""
    flat = flatten_dict(params)
    values, scales = {}, {}
    for path, weight in flat.items():
        if weight.ndim < 2 or path[-1].endswith("_bias"):
            values[path] = weight
            continue
        wide = weight.astype(jnp.float32)
        largest = jnp.max(jnp.abs(wide), axis=SUMMED.get(path[-1], (0,)), keepdims=True)
        scales[path] = jnp.maximum(largest, 1e-30) / 127
        values[path] = jnp.round(wide / scales[path]).astype(jnp.int8)
    return Quantized(unflatten_dict(values), unflatten_dict(scales))
