"""int8 weights for decoding, with a scale for each output channel (compare Dettmers et al. 2022, arXiv 2208.07339)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict[str, Any]
SCALES = "quantization_scale"  # the layers' variable collection with the scales


class Quantized(struct.PyTreeNode):
    """Quantised parameters. A matrix is its int8 values times its scale; norms and biases are unchanged."""

    values: Params  # all parameters
    scales: Params  # of the matrices, under the same names

    @property
    def variables(self) -> Params:
        """The variable collections for the layers."""
        return {"params": self.values, SCALES: self.scales}


def quantize(params: Params, specs: Params) -> Quantized:
    """Quantise each matrix to 255 levels between -x and x, where x is the largest absolute value of the output channel.

    `specs`: a WeightSpec for each parameter (`transformer.specs`).
    """
    flat_specs = flatten_dict(specs)

    @jax.jit
    def rounded(params: Params) -> Quantized:
        values, scales = {}, {}
        for path, weight in flatten_dict(params).items():
            if not flat_specs[path].summed:
                values[path] = weight
                continue
            wide = weight.astype(jnp.float32)
            largest = jnp.max(jnp.abs(wide), axis=flat_specs[path].summed, keepdims=True)
            scales[path] = jnp.maximum(largest, 1e-30) / 127
            values[path] = jnp.round(wide / scales[path]).astype(jnp.int8)
        return Quantized(unflatten_dict(values), unflatten_dict(scales))

    return rounded(params)
