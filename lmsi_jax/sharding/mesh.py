"""Build a device mesh and its table of rules from `MeshConfig`."""

import dataclasses
import math

import jax
import numpy as np

from lmsi_jax.core.errors import UserError
from lmsi_jax.sharding.config import MeshConfig

AXES = ("data", "fsdp", "tensor", "expert")

# Logical axis -> mesh axes.
DEFAULT_RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "experts": ("expert",),
    "router": (),
    "head_width": (),
    "length": (),
    "norm": (),
}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """A grid of devices, and the rules that map logical axes to its axes."""

    devices: jax.sharding.Mesh
    rules: tuple[tuple[str, tuple[str, ...]], ...]  # (logical axis, mesh axes)

    def size(self, logical: str) -> int:
        """Return the number of shards of a logical axis."""
        return math.prod(self.devices.shape[axis] for axis in dict(self.rules)[logical])

    @property
    def gathered(self) -> "Mesh":
        """The same devices with parameters replicated over `fsdp`, so that no decode step has to gather them."""
        if self.devices.shape["fsdp"] == 1:
            return self
        keep = lambda name, axes: axes if name == "batch" else tuple(axis for axis in axes if axis != "fsdp")  # noqa: E731
        return dataclasses.replace(self, rules=tuple((name, keep(name, axes)) for name, axes in self.rules))


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Build the mesh of `config` over `devices` (default: all).

    Raises UserError when the sizes do not multiply to the number of devices, or a rule names an unknown axis.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {axis: getattr(config, axis) for axis in AXES}
    settings = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size == 0 or size < -1 for size in sizes.values()):
        raise UserError(f"{settings}: sizes must be positive, and at most one may be -1 (all remaining devices).")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % fixed or (not free and fixed != len(devices)):
        raise UserError(
            f"{settings} needs {'a multiple of ' if free else ''}{fixed} devices, and there are {len(devices)}. "
            f"Set sizes whose product is {len(devices)}, or one of them to -1."
        )
    for axis in free:
        sizes[axis] = len(devices) // fixed
    grid = np.asarray(devices).reshape([sizes[axis] for axis in AXES])
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return Mesh(jax.sharding.Mesh(grid, AXES, axis_types=types), _resolve_rules(config.rules))


def _resolve_rules(overrides: dict[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    rules = dict(DEFAULT_RULES)
    for logical, mesh_axes in overrides.items():
        axes = tuple(axis.strip() for axis in mesh_axes.split(",") if axis.strip())
        if logical not in rules or not set(axes) <= set(AXES):
            raise UserError(
                f"mesh.rules['{logical}']='{mesh_axes}': logical axes are {', '.join(rules)}, and each is mapped to a "
                f"comma-separated list of {', '.join(AXES)}, or to nothing."
            )
        rules[logical] = axes
    return tuple(rules.items())
