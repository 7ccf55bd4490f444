"""Stacked layers: the numbers of unrolled ones, kinds of layers that alternate, and a compilation that does not grow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import build
from lmsi_jax.formatting.packing import Piece, pack
from lmsi_jax.model import stacked, transformer
from lmsi_jax.model.config import ExpertsConfig, ModelConfig
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.config import RouterConfig, TrainConfig
from lmsi_jax.training.objective import Batch, cross_entropy, place_batch, place_prompts
from lmsi_jax.training.step import init_state, make_step
from lmsi_jax.training.trainable import trainable
from tests.conftest import mesh_of

SMALL = ModelConfig(vocab=400, width=32, layers=3, heads=4, kv_heads=2, head_width=8, mlp=64, context=256)
KINDS = {
    "alike": SMALL,
    "windows": dataclasses.replace(SMALL, windows=(6, 0, 6), rope_base_local=1000.0, tied_embedding=False, base_width=16),
    "experts": dataclasses.replace(SMALL, experts=ExpertsConfig(count=4, mlp=16, dense_layers=(0, 2))),
}
TRAIN = TrainConfig(steps=6, batch=4, row_length=48, learning_rate=1e-2, warmup=1)


def batch_of(mesh):
    rng = np.random.default_rng(0)
    shared = rng.integers(4, 400, 20).tolist()
    pieces = [Piece([*shared, *rng.integers(4, 400, 12).tolist()], 24, "g") for _ in range(8)]
    rows = pack(pieces, 48, share=True)
    return place_batch(mesh, Batch(rows.take(np.arange(4) % len(rows)), place_prompts(mesh, rows.prompts)))


def trained(config, train, shape=(1, 1, 1), steps=2):
    mesh, weights = mesh_of(*shape), trainable(config, train)
    with use_mesh(mesh):
        params = transformer.init_sharded(mesh, config, jax.random.key(0))
        state = init_state(mesh, weights, train, params, 0)
        step = make_step(cross_entropy(config, train.remat, 1e-3, RouterConfig()), weights, train)
        for _ in range(steps):
            state, metrics = step(state, batch_of(mesh), weights.frozen(params))
        return weights.merged(params, state.params), {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize("name", KINDS)
def test_stacked_layers_train_to_the_numbers_of_unrolled_ones(name):
    """Catches: layers in another order, a window of another layer, a shared prompt of another layer, a lost router."""
    config = KINDS[name]
    (plain, wanted), (scanned, found) = (trained(config, dataclasses.replace(TRAIN, scan=scan)) for scan in (False, True))
    assert wanted.keys() == found.keys()
    for key in wanted:
        assert found[key] == pytest.approx(wanted[key], rel=2e-4), key
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    assert jax.tree.structure(plain) == jax.tree.structure(scanned)


@pytest.mark.slow
def test_stacked_layers_on_a_mesh_with_recomputation():
    """Catches: a sharding of the axis of blocks, and recomputation that is lost in the loop."""
    plain = trained(SMALL, TRAIN)[1]
    found = trained(SMALL, dataclasses.replace(TRAIN, scan=True, remat="full"), (2, 2, 2))[1]
    assert found["loss"] == pytest.approx(plain["loss"], rel=1e-3)


def test_stacking_is_undone():
    """Catches: a layer after the last whole block that is stacked or lost."""
    for config in KINDS.values():
        shapes, rng = transformer.abstract(config)[0], np.random.default_rng(0)
        params = jax.tree.map(lambda leaf, rng=rng: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), shapes)
        again = stacked.unstack(config, stacked.stack(config, params))
        assert jax.tree.structure(again) == jax.tree.structure(params)
        assert all((a == b).all() for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True))
    assert [stacked.period_of(config) for config in KINDS.values()] == [1, 2, 2]


def program_of(layers):
    """The program of a training step on rows that continue a shared prompt, as text."""
    config = dataclasses.replace(SMALL, layers=layers)
    train, mesh = dataclasses.replace(TRAIN, scan=True), mesh_of(1, 1, 1)
    weights = trainable(config, train)
    with use_mesh(mesh):
        params = transformer.init_sharded(mesh, config, jax.random.key(0))
        state = init_state(mesh, weights, train, params, 0)
        return str(jax.make_jaxpr(make_step(cross_entropy(config), weights, train))(state, batch_of(mesh), {}))


def test_the_program_does_not_grow_with_the_layers():
    """Catches: a loop that is unrolled, and an optimiser or shared prompts with a program for each layer."""
    few, many = len(program_of(2)), len(program_of(12))
    assert many < 1.05 * few, (few, many)


def test_adapters_are_not_stacked():
    with pytest.raises(UserError, match="adapters are not stacked"):
        build(TrainConfig, {"scan": True, "lora": {"rank": 2}})
