"""Sharding of arrays by the logical names of their axes."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax
from jax.sharding import NamedSharding, PartitionSpec

from lmsi_jax.core.errors import UserError
from lmsi_jax.sharding.mesh import Mesh

_current: contextvars.ContextVar[Mesh] = contextvars.ContextVar("lmsi_mesh")


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """Context manager: functions that are traced inside are sharded over `mesh`, and `constrain` follows its rules."""
    token = _current.set(mesh)
    try:
        with jax.set_mesh(mesh.devices):
            yield mesh
    finally:
        _current.reset(token)


def current_mesh() -> Mesh:
    """Return the mesh of `use_mesh`."""
    mesh = _current.get(None)
    if mesh is None:
        raise RuntimeError("There is no mesh outside use_mesh(), and so no rules to shard an array by.")
    return mesh


def jit(function: Callable[..., Any], *, static_argnums: Sequence[int] = (), donate_argnums: Sequence[int] = ()) -> Any:
    """Like `jax.jit`, for a function that calls `constrain`: the current mesh and its rules are part of the cache key.

    `jax.jit` itself would trace such a function once for the same devices, and reuse the sharding of the first rules. The
    result has the method `lower`, as a jitted function does. It must be called inside `use_mesh`.
    """

    def of_mesh(mesh: Mesh, *arguments: Any) -> Any:
        return function(*arguments)

    of_mesh.__name__ = of_mesh.__qualname__ = function.__name__
    static, donated = (0, *(i + 1 for i in static_argnums)), tuple(i + 1 for i in donate_argnums)
    jitted = jax.jit(of_mesh, static_argnums=static, donate_argnums=donated)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return jitted(_current.get(), *arguments)

    call.lower = lambda *arguments: jitted.lower(_current.get(), *arguments)  # type: ignore[attr-defined]
    call._cache_size = jitted._cache_size  # type: ignore[attr-defined]
    return call


def spec(mesh: Mesh, axes: tuple[str | None, ...]) -> PartitionSpec:
    """Return the partition of an array with these logical axes (None = replicated).

    Raises UserError when two of its axes are mapped to the same mesh axis.
    """
    rules = dict(mesh.rules)
    used: dict[str, str] = {}
    parts: list[tuple[str, ...] | None] = []
    for name in axes:
        mesh_axes = rules[name] if name is not None else ()
        for axis in mesh_axes:
            if axis in used:
                raise UserError(
                    f"Logical axes '{used[axis]}' and '{name}' of one array are both mapped to mesh axis '{axis}'; change "
                    f"one of them with --config.mesh.rules."
                )
            used[axis] = str(name)
        parts.append(mesh_axes or None)
    return PartitionSpec(*parts)


def sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """Return the sharding of an array whose axes have these logical names (None = replicated)."""
    return NamedSharding(mesh.devices, spec(mesh, axes))


def constrain(array: jax.Array, *axes: str | None) -> jax.Array:
    """Constrain the sharding of `array` by the logical names of its axes. Requires `use_mesh`, even on a single device."""
    mesh = current_mesh()
    if len(axes) != array.ndim:
        raise ValueError(f"constrain got {len(axes)} axis names {axes} for an array of shape {array.shape}.")
    return jax.lax.with_sharding_constraint(array, sharding(mesh, *axes))


def param_shardings(mesh: Mesh, shapes: Any, axes: Any) -> Any:
    """Return a tree of shardings from a tree of shapes and a tree of logical axes.

    Raises UserError when an axis is not divisible by the size of its mesh axes.
    """

    def one(shape: jax.ShapeDtypeStruct, names: tuple[str | None, ...]) -> NamedSharding:
        for size, name in zip(shape.shape, names, strict=True):
            shards = mesh.size(name) if name is not None else 1
            if size % shards:
                raise UserError(
                    f"A parameter of shape {shape.shape} has axis '{name}' of size {size}, which does not divide over "
                    f"{shards} devices (mesh axes {dict(mesh.rules).get(str(name))}); choose a mesh size that divides {size}."
                )
        return sharding(mesh, *names)

    return jax.tree.map(one, shapes, axes)


def with_shardings(shapes: Any, places: Any) -> Any:
    """Return a tree of abstract arrays: the shapes and dtypes of `shapes` with the shardings of `places`."""
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places)


def gather(mesh: Mesh, arrays: Any) -> Any:
    """Return arrays replicated over the mesh axis `fsdp`, as `mesh.gathered` has them; the same ones if it has size 1."""
    if mesh.devices.shape["fsdp"] == 1:
        return arrays

    def place(array: jax.Array) -> NamedSharding:
        placed = cast(NamedSharding, array.sharding)
        parts = [(part,) if isinstance(part, str) else part or () for part in placed.spec]
        kept = [tuple(axis for axis in part if axis != "fsdp") or None for part in parts]
        return NamedSharding(mesh.devices, PartitionSpec(*kept))

    return jax.jit(lambda tree: tree, out_shardings=jax.tree.map(place, arrays))(arrays)
