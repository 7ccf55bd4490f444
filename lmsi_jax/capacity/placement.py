"""Report how each parameter is sharded, and reject a mesh that would replicate a large one."""

import dataclasses
import math
import re
from collections import Counter
from typing import Any

import jax
from rich.table import Table

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import GIB
from lmsi_jax.decoding.memory import bytes_on_device
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.sharding.mesh import Mesh


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters with the same name up to the layer number, the same shape and the same sharding."""

    name: str  # "attention_*/query"
    shape: tuple[int, ...]
    axes: tuple[str, ...]  # logical axes
    spec: tuple[str, ...]  # mesh axes of each axis of the shape, comma-separated; "" = replicated
    each: int  # bytes of one parameter on a device

    def replicated(self, mesh: Mesh) -> bool:
        """Whether every device stores the full parameter."""
        return not any(mesh.devices.shape[axis] > 1 for axes in self.spec for axis in axes.split(",") if axis)


def placements(mesh: Mesh, config: ModelConfig) -> Counter[Group]:
    """Group the model's parameters and return the number of parameters (arrays) in each group."""

    def group(path: tuple, leaf: Any, axes: tuple[str, ...]) -> Group:
        name = re.sub(r"_\d+", "_*", "/".join(key.key for key in path))
        parts = (*leaf.sharding.spec, *[None] * (leaf.ndim - len(leaf.sharding.spec)))
        spec = tuple(",".join((part,) if isinstance(part, str) else part or ()) for part in parts)
        return Group(name, leaf.shape, axes, spec, bytes_on_device(leaf))

    groups = jax.tree.map_with_path(group, transformer.sharded(mesh, config), transformer.abstract(config)[1])
    return Counter(jax.tree.leaves(groups, is_leaf=lambda leaf: isinstance(leaf, Group)))


def check_placements(mesh: Mesh, config: ModelConfig, largest: float) -> None:
    """Raise UserError when a parameter of more than `largest` GiB is replicated although fsdp or tensor is above 1."""
    shards = mesh.devices.shape["fsdp"] * mesh.devices.shape["tensor"]
    for group in placements(mesh, config) if shards > 1 else ():
        if group.each > largest * GIB and group.replicated(mesh):
            raise UserError(
                f"Parameter {group.name} of shape {group.shape} would be replicated on each of {shards} devices that shard the "
                f"others. It takes {group.each / GIB:.2f} GiB, and training needs several times that. Map one of its axes "
                f"({', '.join(group.axes)}) to a mesh axis with --config.mesh.rules, or raise "
                f"--config.mesh.max_replicated_gib (currently {largest})."
            )


def placement_table(mesh: Mesh, config: ModelConfig) -> Table:
    """Return a table with a row for each group of parameters, and their total size in the caption."""
    table = Table(title="Parameters")
    for name in ("name", "number", "shape", "mesh axes", "MiB per device"):
        table.add_column(name, justify="right" if name in ("number", "MiB per device") else "left")
    counted, mib = placements(mesh, config), 2.0**20
    for group, count in counted.items():
        shape, spec = " x ".join(map(str, group.shape)), ", ".join(axes or "-" for axes in group.spec)
        table.add_row(group.name, str(count), shape, spec, f"{count * group.each / mib:.2f}")
    parameters = sum(count * math.prod(group.shape) for group, count in counted.items())
    total = sum(count * group.each for group, count in counted.items())
    table.caption = f"{parameters:,} parameters, {total / mib:,.1f} MiB per device in the stored dtype"
    return table
