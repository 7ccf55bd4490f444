"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): a small second tree of parameters, trained in place of the model's.

An adapted weight is W + alpha / rank * A @ B, where A reads W's input axes and B writes its output axes. Training computes
the two products side by side (`Adapted`): in the sum with a weight in bfloat16 the small A @ B of the first steps would be
rounded away. The trained model is merged (`merge`), so that decoding knows nothing of adapters. Its weights are the sums
rounded once to their dtype; that rounding is the difference from the base model with the exported adapters beside it.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct, traverse_util
from jaxtyping import Array, Key

from lmsi_jax.core.config import LoraConfig
from lmsi_jax.core.errors import UserError

Params = dict[str, Any]
Adapters = dict[str, Any]  # {"attention_0": {"query": {"a": (*in, rank), "b": (rank, *out)}}}
_INPUTS = {"query": 1, "key": 1, "value": 1, "out": 2, "gate": 1, "up": 1, "down": 1}  # input axes; no others are adapted
ADAPTERS = "adapters"  # the collection of variables that they are to the layers


class Adapted(struct.PyTreeNode):
    """A frozen model and the adapters beside its weights."""

    params: Params
    adapters: Adapters
    config: LoraConfig = struct.field(pytree_node=False)

    @property
    def variables(self) -> Params:
        """As the layers look them up: what they add to a product with W is the product with A and then with this B."""
        flat = traverse_util.flatten_dict(self.adapters)
        scaled = {path: leaf * _scale(self.config) if path[-1] == "b" else leaf for path, leaf in flat.items()}
        return {"params": self.params, ADAPTERS: traverse_util.unflatten_dict(scaled)}


def _scale(config: LoraConfig) -> float:
    return config.alpha / config.rank


def abstract(shapes: Params, axes: Params, config: LoraConfig) -> tuple[Adapters, Adapters]:
    """Shapes and logical axes of the adapters of a model; float32. Raises UserError when `targets` names no weight."""
    flat = traverse_util.flatten_dict(shapes, sep="/")
    flat_axes = traverse_util.flatten_dict(axes, sep="/")
    matrices = {path: shape.shape for path, shape in flat.items() if path.rpartition("/")[2] in _INPUTS}
    found = {path: shape for path, shape in matrices.items() if re.fullmatch(config.targets, path)}
    if not found:
        raise UserError(
            f"finetune.lora.targets={config.targets!r} matches no weight of this model; its weights are "
            f"{', '.join(sorted({re.sub(r'[0-9]+', 'N', path) for path in matrices}))}."
        )
    out_shapes, out_axes = {}, {}
    for path, shape in found.items():
        n = _INPUTS[path.rpartition("/")[2]]
        out_shapes[f"{path}/a"] = jax.ShapeDtypeStruct((*shape[:n], config.rank), jnp.float32)
        out_shapes[f"{path}/b"] = jax.ShapeDtypeStruct((config.rank, *shape[n:]), jnp.float32)
        out_axes[f"{path}/a"] = (*flat_axes[path][:n], None)
        out_axes[f"{path}/b"] = (None, *flat_axes[path][n:])
    return traverse_util.unflatten_dict(out_shapes, sep="/"), traverse_util.unflatten_dict(out_axes, sep="/")


def init(shapes: Adapters, key: Key[Array, ""]) -> Adapters:
    """A from a normal distribution of variance 1 / inputs, B zero: at first the model is as it was."""
    leaves = traverse_util.flatten_dict(shapes, sep="/")
    keys = jax.random.split(key, len(leaves))

    def one(path: str, shape: jax.ShapeDtypeStruct, key: Key[Array, ""]) -> Array:
        if path.endswith("/b"):
            return jnp.zeros(shape.shape, shape.dtype)
        fan_in = shape.size // shape.shape[-1]
        return jax.random.normal(key, shape.shape, shape.dtype) / jnp.sqrt(fan_in)

    made = {path: one(path, shape, key) for (path, shape), key in zip(leaves.items(), keys, strict=True)}
    return traverse_util.unflatten_dict(made, sep="/")


def merge(params: Params, adapters: Adapters, config: LoraConfig) -> Params:
    """The adapted parameters; each sum is made in float32 and stored in its weight's dtype."""
    flat, low_rank = traverse_util.flatten_dict(params, sep="/"), traverse_util.flatten_dict(adapters, sep="/")
    for path in {path.rpartition("/")[0] for path in low_rank}:
        added = jnp.tensordot(low_rank[f"{path}/a"], low_rank[f"{path}/b"], axes=1) * _scale(config)
        flat[path] = (flat[path].astype(jnp.float32) + added).astype(flat[path].dtype)
    return traverse_util.unflatten_dict(flat, sep="/")
