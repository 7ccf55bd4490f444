"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): a small second tree of parameters, trained instead of the model's.

An adapted weight is W + alpha / rank * A @ B, where A reads W's input axes and B writes its output axes. Training computes
the products with W and with the adapter separately (`Adapted`), because the small A @ B of the first steps would be rounded
away in a sum with a bfloat16 weight. The trained model is merged (`merge`), so that decoding needs no adapters. Merging
rounds each sum once to the weight's dtype. The merged model differs from the base model with exported adapters only by this
rounding.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct, traverse_util
from jaxtyping import Array, Key

from lmsi_jax.core.errors import UserError
from lmsi_jax.model.config import LoraConfig

Params = dict[str, Any]
Adapters = dict[str, Any]  # {"attention_0": {"query": {"a": (*in, rank), "b": (rank, *out)}}}
ADAPTERS = "adapters"  # the layers' variable collection with the adapters


class Adapted(struct.PyTreeNode):
    """A frozen model and the adapters of its weights."""

    params: Params
    adapters: Adapters
    config: LoraConfig = struct.field(pytree_node=False)

    @property
    def variables(self) -> Params:
        """The variable collections for the layers. B is multiplied by alpha / rank, so that the layers add x @ A @ B."""
        flat = traverse_util.flatten_dict(self.adapters)
        scaled = {path: leaf * _scale(self.config) if path[-1] == "b" else leaf for path, leaf in flat.items()}
        return {"params": self.params, ADAPTERS: traverse_util.unflatten_dict(scaled)}


def _scale(config: LoraConfig) -> float:
    return config.alpha / config.rank


def abstract(shapes: Params, specs: Params, config: LoraConfig) -> tuple[Adapters, Adapters]:
    """Return the shapes and the logical axes of a model's adapters, which are float32.

    `shapes` and `specs` are those of the model's parameters. Raises UserError when `targets` matches no weight.
    """
    flat = traverse_util.flatten_dict(shapes, sep="/")
    adaptable = {path: spec for path, spec in traverse_util.flatten_dict(specs, sep="/").items() if spec.adaptable}
    adapted = {path: spec for path, spec in adaptable.items() if re.fullmatch(config.targets, path)}
    if not adapted:
        raise UserError(
            f"finetune.lora.targets={config.targets!r} matches no weight of this model; its weights are "
            f"{', '.join(sorted({re.sub(r'[0-9]+', 'N', path) for path in adaptable}))}."
        )
    out_shapes, out_axes = {}, {}
    for path, spec in adapted.items():
        shape, inputs = flat[path].shape, len(spec.summed)
        out_shapes[f"{path}/a"] = jax.ShapeDtypeStruct((*shape[:inputs], config.rank), jnp.float32)
        out_shapes[f"{path}/b"] = jax.ShapeDtypeStruct((config.rank, *shape[inputs:]), jnp.float32)
        out_axes[f"{path}/a"] = (*spec.axes[:inputs], None)
        out_axes[f"{path}/b"] = (None, *spec.axes[inputs:])
    return traverse_util.unflatten_dict(out_shapes, sep="/"), traverse_util.unflatten_dict(out_axes, sep="/")


def init(shapes: Adapters, key: Key[Array, ""]) -> Adapters:
    """Initialise A from a normal distribution with variance 1 / inputs, and B with zeros: the initial model is unchanged."""
    leaves = traverse_util.flatten_dict(shapes, sep="/")
    keys = jax.random.split(key, len(leaves))

    def one(path: str, shape: jax.ShapeDtypeStruct, key: Key[Array, ""]) -> Array:
        if path.endswith("/b"):
            return jnp.zeros(shape.shape, shape.dtype)
        fan_in = shape.size // shape.shape[-1]
        return jax.random.normal(key, shape.shape, shape.dtype) / jnp.sqrt(fan_in)

    adapters = {path: one(path, shape, key) for (path, shape), key in zip(leaves.items(), keys, strict=True)}
    return traverse_util.unflatten_dict(adapters, sep="/")


def merge(params: Params, adapters: Adapters, config: LoraConfig) -> Params:
    """Return the parameters with the adapters added. Each sum is computed in float32 and stored in its weight's dtype."""
    flat, low_rank = traverse_util.flatten_dict(params, sep="/"), traverse_util.flatten_dict(adapters, sep="/")
    for path in {path.rpartition("/")[0] for path in low_rank}:
        update = jnp.tensordot(low_rank[f"{path}/a"], low_rank[f"{path}/b"], axes=1) * _scale(config)
        flat[path] = (flat[path].astype(jnp.float32) + update).astype(flat[path].dtype)
    return traverse_util.unflatten_dict(flat, sep="/")
