"""Where each parameter lives, and a stop where a large one would be whole on every device."""

import dataclasses
import math
import re
from collections import Counter

import jax
from rich.table import Table

from lmsi_jax import model
from lmsi_jax.core.config import ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import GIB
from lmsi_jax.decoding.memory import on_device
from lmsi_jax.sharding import Mesh, param_shardings


@dataclasses.dataclass(frozen=True)
class Placed:
    """Parameters that are alike: of one name but for the number of the layer, one shape and one place."""

    name: str  # "attention_*/query"
    shape: tuple[int, ...]
    axes: tuple[str, ...]  # logical
    spec: tuple[str, ...]  # mesh axes of each axis of the shape; "" = whole
    each: int  # bytes on a device, of one of them

    def whole(self, mesh: Mesh) -> bool:
        """Has every device all of it?"""
        return not any(mesh.devices.shape[axis] > 1 for axes in self.spec for axis in axes.split(",") if axis)


def placements(mesh: Mesh, config: ModelConfig) -> Counter[Placed]:
    """How many parameters there are of each kind."""
    shapes, axes = model.abstract(config)
    places = param_shardings(mesh, shapes, axes)

    def one(path: tuple, shape: jax.ShapeDtypeStruct, names: tuple[str, ...], place: jax.sharding.NamedSharding) -> Placed:
        name = re.sub(r"_\d+", "_*", "/".join(key.key for key in path))
        parts = (*place.spec, *[None] * (len(shape.shape) - len(place.spec)))
        spec = tuple(",".join((part,) if isinstance(part, str) else part or ()) for part in parts)
        return Placed(name, shape.shape, names, spec, on_device(shape, place))

    found = jax.tree.map_with_path(one, shapes, axes, places)
    return Counter(jax.tree.leaves(found, is_leaf=lambda leaf: isinstance(leaf, Placed)))


def check_placements(mesh: Mesh, config: ModelConfig, largest: float) -> None:
    """Raise UserError where a parameter of more than `largest` GiB is whole on every device, though some could share it."""
    shared = mesh.devices.shape["fsdp"] * mesh.devices.shape["tensor"]
    for placed in placements(mesh, config) if shared > 1 else ():
        if placed.each > largest * GIB and placed.whole(mesh):
            raise UserError(
                f"Parameter {placed.name} of shape {placed.shape} would be whole on each of {shared} devices that share the "
                f"others: {placed.each / GIB:.2f} GiB, and training keeps several times that. Give one of its axes "
                f"({', '.join(placed.axes)}) a mesh axis with --config.mesh.rules, or raise --config.mesh.largest_whole (now "
                f"{largest} GiB)."
            )


def placement_table(mesh: Mesh, config: ModelConfig) -> Table:
    """A row for each kind of parameter, and what they take together."""
    table = Table(title="Parameters")
    for name in ("name", "number", "shape", "mesh axes", "MiB a device"):
        table.add_column(name, justify="right" if name in ("number", "MiB a device") else "left")
    found, mib = placements(mesh, config), 2.0**20
    for placed, count in found.items():
        shape, spec = " x ".join(map(str, placed.shape)), ", ".join(axes or "-" for axes in placed.spec)
        table.add_row(placed.name, str(count), shape, spec, f"{count * placed.each / mib:.2f}")
    parameters = sum(count * math.prod(placed.shape) for placed, count in found.items())
    total = sum(count * placed.each for placed, count in found.items())
    table.caption = f"{parameters:,} parameters, {total / mib:,.1f} MiB a device as they are stored"
    return table
