"""Where parameters are said to live, against where they are."""

import dataclasses

import jax
import numpy as np
import pytest

from lmsi_jax.capacity.placement import check_placements, placement_table, placements
from lmsi_jax.core.errors import UserError
from lmsi_jax.model import transformer
from lmsi_jax.model.presets import preset
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from tests.conftest import mesh_of, place


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1), (2, 2, 2)])
def test_bytes_are_those_that_devices_hold(shape, model_config, params):
    """Catches: a report of whole parameters where devices hold parts, or of one layer for all."""
    mesh = mesh_of(*shape)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(place(mesh, model_config, params)))
    found = placements(mesh, model_config)
    assert sum(count * placed.each for placed, count in found.items()) == held
    said = placement_table(mesh, model_config)
    assert said.row_count == len(found) and f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters" in said.caption


def test_the_table_counts_every_layer():
    """Catches: a sum of one layer's parameters for all of them."""
    shape = preset("qwen2.5-0.5b")
    size = transformer.count_params(shape) * np.dtype(shape.param_dtype).itemsize / 2**20
    assert f"{size:,.1f} MiB per device" in placement_table(mesh_of(1, 1, 1), shape).caption


def test_a_large_parameter_on_every_device_is_refused(model_config):
    """Catches: a rule that silently copies the largest weights to all devices; a mesh of copies that is meant to be one."""
    rules = {"embed": "", "mlp": "", "vocab": ""}
    shape = dataclasses.replace(model_config, heads=8, kv_heads=8)
    whole = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2, rules=rules))
    refused = r"embedding of shape \(400, 32\) would be replicated on each of 8 devices.*vocab, embed"
    with pytest.raises(UserError, match=refused):
        check_placements(whole, shape, largest=400 * 32 * 4 / 2**30 - 1e-6)
    check_placements(whole, shape, largest=400 * 32 * 4 / 2**30)
    check_placements(make_mesh(MeshConfig(data=8, rules=rules)), shape, largest=1e-6)
    check_placements(make_mesh(MeshConfig(data=1, fsdp=4, tensor=2)), shape, largest=1e-6)
