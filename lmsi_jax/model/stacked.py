"""Parameters whose layers are stacked, so that a loop over layers is compiled once, however many there are.

Layers of one kind may differ only in their weights. Where kinds alternate, such as local and global attention, a block has one
layer of each kind in turn, and the blocks are stacked.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from lmsi_jax.model.config import ModelConfig

Params = dict[str, Any]
_LAYER = re.compile(r"(.+)_(\d+)")


class Stacked(struct.PyTreeNode):
    """The weights of the blocks, each with a leading axis of blocks and the names of the first block; and all other weights."""

    blocks: Params
    rest: Params

    @property
    def variables(self) -> Params:
        """The variable collections for what is outside the blocks."""
        return {"params": self.rest}


class OfLayers(struct.PyTreeNode):
    """What each layer of a stacked model computes or reads, such as keys and values, as containers of arrays.

    `blocks[i]` is that of layer i of all blocks, with a leading axis; `rest` has that of each layer after the last block.
    """

    blocks: list[Any]
    rest: list[Any]

    def map(self, function: Callable[[Any], Any]) -> "OfLayers":
        """Return the results of a function of one layer, which is compiled once for all blocks."""
        return OfLayers([jax.vmap(function)(each) for each in self.blocks], [function(each) for each in self.rest])


def period_of(config: ModelConfig) -> int:
    """Return the number of layers of a block: the shortest one after which the kinds of the layers repeat."""
    kinds = [(config.windows[i] if config.windows else 0, i in config.sparse_layers) for i in range(config.layers)]
    return next(
        period
        for period in range(1, config.layers + 1)
        if all(kinds[i] == kinds[i % period] for i in range(config.layers // period * period))
    )


def divide(config: ModelConfig, names: Any) -> tuple[dict[str, list[str]], list[str]]:
    """Return the names of the stacked modules by their name in the first block, and the names of all others."""
    period = period_of(config)
    stacked: dict[str, list[str]] = {}
    rest = []
    for name in names:
        match = _LAYER.fullmatch(name)
        if match and int(match[2]) < config.layers // period * period:
            stacked.setdefault(f"{match[1]}_{int(match[2]) % period}", []).append(name)
        else:
            rest.append(name)
    return {name: sorted(each, key=lambda n: int(n.rpartition("_")[2])) for name, each in stacked.items()}, rest


def stack(config: ModelConfig, params: Params) -> Stacked:
    """Return the same parameters with stacked layers."""
    stacked, rest = divide(config, params)
    blocks = {
        name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[each] for each in names))
        for name, names in stacked.items()
    }
    return Stacked(blocks, {name: params[name] for name in rest})


def unstack(config: ModelConfig, params: Stacked) -> Params:
    """Return the parameters of each layer under its own name."""
    period, count = period_of(config), config.layers // period_of(config)
    layers = dict(params.rest)
    for name, module in params.blocks.items():
        kind, _, place = name.rpartition("_")
        for n in range(count):
            layers[f"{kind}_{n * period + int(place)}"] = jax.tree.map(lambda leaf, n=n: leaf[n], module)
    return layers


def of_first_block(config: ModelConfig, tree: Params) -> Stacked:
    """Return a tree of facts about parameters, such as their axes, with those of the first block for all blocks."""
    stacked, rest = divide(config, tree)
    return Stacked({name: tree[names[0]] for name, names in stacked.items()}, {name: tree[name] for name in rest})
