"""The optimisers: what they keep, what decays, and the learning rate of each step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmsi_jax.formatting.packing import pack
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.optimizer import learning_rate, optimizer
from lmsi_jax.training.trainable import AllWeights
from tests.conftest import mesh_of, place
from tests.training.fine_tuning import init_state, make_step, place_batch
from tests.training.test_training import CONFIG, pieces


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
def test_adafactor_learns_with_less_to_keep(shape, model_config, params):
    """Catches: sums laid out as if they were whole moments; an optimiser that does not step."""
    config = dataclasses.replace(CONFIG, optimizer="adafactor", steps=30)
    batch, mesh = pack(pieces(), 48).take(np.arange(8)), mesh_of(*shape)
    with use_mesh(mesh):
        state = init_state(mesh, model_config, config, place(mesh, model_config, params), seed=0)
        kept = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
        step, losses = make_step(model_config, config), []
        for _ in range(8):
            state, metrics = step(state, place_batch(mesh, batch), {})
            losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    assert kept < 1.2 * sum(leaf.size for leaf in jax.tree.leaves(state.params))  # adamw: twice


def test_a_first_moment_in_bfloat16_learns_as_well(model_config, params):
    """Catches: a setting without an effect, weights or second moments that lose digits too."""
    batch, mesh, ends = pack(pieces(), 48).take(np.arange(8)), mesh_of(1, 1, 1), {}
    for dtype in ("float32", "bfloat16"):
        config = dataclasses.replace(CONFIG, first_moment=dtype, steps=30)
        with use_mesh(mesh):
            state, step = init_state(mesh, model_config, config, params, seed=0), make_step(model_config, config)
            for _ in range(8):
                state, metrics = step(state, place_batch(mesh, batch), {})
        kept = [leaf.dtype.name for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
        assert kept.count("bfloat16") == (len(kept) // 2 if dtype == "bfloat16" else 0)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
        ends[dtype] = float(metrics["loss"])
    assert ends["bfloat16"] == pytest.approx(ends["float32"], rel=0.01)


@pytest.mark.parametrize(
    ("schedule", "warmup", "steps", "expected"),
    [
        ("linear", 2, 6, [0.5, 1, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", 2, 6, [0.5, 1, 0.8828427, 0.6, 0.3171573, 0.2]),
        ("constant", 2, 4, [0.5, 1, 1, 1]),
        ("linear", 0, 4, [0.8, 0.6, 0.4, 0.2]),
        ("cosine", 0, 4, [0.8828427, 0.6, 0.3171573, 0.2]),
        ("constant", 0, 2, [1, 1]),
        ("linear", 3, 4, [1 / 3, 2 / 3, 1, 0.2]),
        ("linear", 0, 1, [0.2]),
        ("cosine", 0, 1, [0.2]),
        ("constant", 0, 1, [1]),
    ],
)
def test_learning_rates(schedule, warmup, steps, expected):
    """Catches: a first step of rate 0, a warm-up that never ends, a last step that misses `final_learning_rate`."""
    config = TrainConfig(steps=steps, warmup=warmup, learning_rate=2.0, schedule=schedule, final_learning_rate=0.2)
    rate = learning_rate(config)
    assert [float(rate(step)) / 2 for step in range(steps)] == pytest.approx(expected, abs=1e-6)


def test_norm_scales_do_not_decay(model_config, params):
    """Catches: weight decay on the norms, which shrinks the residual stream."""
    config = TrainConfig(weight_decay=1.0, learning_rate=1.0, warmup=0, steps=2)
    tx = optimizer(config, AllWeights(model_config))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(moved["final_norm"]["scale"], params["final_norm"]["scale"])
    assert not np.allclose(moved["mlp_0"]["up"], params["mlp_0"]["up"])
