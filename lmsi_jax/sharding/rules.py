"""Placing arrays by the logical names of their axes."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from lmsi_jax.core.errors import UserError
from lmsi_jax.sharding.mesh import Mesh

_current: contextvars.ContextVar[Mesh] = contextvars.ContextVar("lmsi_mesh")


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """Everything traced inside is placed on `mesh`; `constrain` looks its rules up here."""
    token = _current.set(mesh)
    try:
        with jax.set_mesh(mesh.devices):
            yield mesh
    finally:
        _current.reset(token)


def jit(function: Callable[..., Any], *, static_argnums: Sequence[int] = (), donate_argnums: Sequence[int] = ()) -> Any:
    """`jax.jit` for a function that places arrays with `constrain`: the mesh in use, its rules included, is part of the key.

    `jax.jit` alone would trace such a function once for given devices, and keep the placement of the first rules. The result
    has `lower`, as a jitted function has. It is to be called inside `use_mesh`.
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
    """The partition of an array with these logical axes. A mesh axis may be used once in an array."""
    rules = dict(mesh.rules)
    used: dict[str, str] = {}
    parts: list[tuple[str, ...] | None] = []
    for name in axes:
        places = rules[name] if name is not None else ()
        for place in places:
            if place in used:
                raise UserError(
                    f"Logical axes '{used[place]}' and '{name}' of one array both go to mesh axis '{place}'; change "
                    f"one of them with --config.mesh.rules."
                )
            used[place] = str(name)
        parts.append(places or None)
    return PartitionSpec(*parts)


def sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """The sharding of an array whose axes have these logical names."""
    return NamedSharding(mesh.devices, spec(mesh, axes))


def platform() -> str:
    """The kind of device that what is being traced will run on: "cpu", "gpu" or "tpu". Needs `use_mesh`."""
    return _current.get().devices.devices.flat[0].platform


def constrain(array: jax.Array, *axes: str | None) -> jax.Array:
    """Tell the compiler where `array` lives. Needs `use_mesh`, on one device as on a thousand."""
    mesh = _current.get(None)
    if mesh is None:
        raise RuntimeError("constrain() was called outside use_mesh(); there are no rules to place the array by.")
    if len(axes) != array.ndim:
        raise ValueError(f"constrain got {len(axes)} axis names {axes} for an array of shape {array.shape}.")
    return jax.lax.with_sharding_constraint(array, sharding(mesh, *axes))


def param_shardings(mesh: Mesh, shapes: Any, axes: Any) -> Any:
    """A tree of shardings from a tree of shapes and one of logical axes.

    Raises UserError when an axis does not divide over its mesh axes, before anything compiles.
    """

    def one(shape: jax.ShapeDtypeStruct, names: tuple[str | None, ...]) -> NamedSharding:
        for size, name in zip(shape.shape, names, strict=True):
            parts = mesh.size(name) if name is not None else 1
            if size % parts:
                raise UserError(
                    f"A parameter of shape {shape.shape} has axis '{name}' of size {size}, which does not divide over "
                    f"{parts} devices (mesh axes {dict(mesh.rules).get(str(name))}); choose a mesh size that divides {size}."
                )
        return sharding(mesh, *names)

    return jax.tree.map(one, shapes, axes)
