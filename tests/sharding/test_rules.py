"""Placement by rules."""

import jax
import jax.numpy as jnp

from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import constrain, gather, jit, sharding, use_mesh


def test_two_rule_tables_on_the_same_devices_are_two_programs():
    """Catches: a function that was traced under one table of rules and silently keeps it under another."""
    place = jit(lambda x: constrain(x * 1, "batch", "embed"))
    x = jnp.zeros((8, 8))
    for embed in ("fsdp", "tensor", ""):
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2, rules={"embed": embed, "batch": "data"}), jax.devices())
        with use_mesh(mesh):
            parts = [place(x).sharding.shard_shape(x.shape), sharding(mesh, "batch", "embed").shard_shape(x.shape)]
            assert parts[0] == parts[1] == (4, 4 if embed else 8), embed
            assert embed in str(place(x).sharding.spec)
    assert place._cache_size() == 3


def test_only_the_sharding_package_jits_what_places_arrays():
    """Catches: a module-level function under jax.jit, whose key does not hold the rules that `constrain` reads."""
    import ast
    from pathlib import Path

    import lmsi_jax

    found = []
    for path in Path(lmsi_jax.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            found += [f"{path.name}:{node.name}" for d in decorators if "jax.jit" in ast.unparse(d)]
    assert found == ["quantize.py:rounded"], "it places nothing"


def test_gathered_arrays_lie_as_the_gathered_mesh_has_them():
    """Catches: weights that every step of decoding gathers, and weights that are no longer split over `tensor`."""
    mesh = make_mesh(MeshConfig(2, 2, 2), jax.devices()[:8])
    axes = {"up": ("embed", "mlp"), "scale": ("norm",)}
    shapes = {"up": (4, 8), "scale": (4,)}
    arrays = {name: jax.device_put(jnp.ones(shapes[name]), sharding(mesh, *axes[name])) for name in axes}
    for name, array in gather(mesh, arrays).items():
        assert array.sharding.is_equivalent_to(sharding(mesh.gathered, *axes[name]), array.ndim)
    alone = make_mesh(MeshConfig(8, 1, 1), jax.devices()[:8])
    assert gather(alone, arrays) is arrays
