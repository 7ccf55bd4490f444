"""Adapters in place of a full fine-tune."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.packing import pack
from lmsi_jax.model import lora, transformer
from lmsi_jax.model.config import LoraConfig
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.objective import place_prompts
from lmsi_jax.training.trainable import trainable
from tests.conftest import MESHES, mesh_of, place
from tests.training.fine_tuning import batch_loss, init_state, make_step, place_batch, train
from tests.training.test_training import CONFIG, mixture, pieces

LORA = dataclasses.replace(CONFIG, lora=LoraConfig(rank=3, alpha=6.0), learning_rate=1e-2)


def test_only_the_targets_are_adapted(model_config):
    """Catches: a pattern that is searched for, not matched; adapters on norms or embeddings."""
    config = dataclasses.replace(LORA, lora=LoraConfig(rank=3, targets=r"attention_\d+/(query|out)"))
    shapes, axes = trainable(model_config, config).abstract()
    assert set(shapes) == {"attention_0", "attention_1"} and set(shapes["attention_0"]) == {"query", "out"}
    assert [shapes["attention_0"]["query"][part].shape for part in "ab"] == [(32, 3), (3, 4, 8)]
    assert [shapes["attention_0"]["out"][part].shape for part in "ab"] == [(4, 8, 3), (3, 32)]
    assert axes["attention_0"]["out"]["a"] == ("heads", "head_width", None)
    biased = dataclasses.replace(model_config, qkv_bias=True)
    everything, _ = trainable(biased, TrainConfig(lora=LoraConfig(rank=3, targets=".*"))).abstract()
    assert set(everything) == {f"{part}_{i}" for part in ("attention", "mlp") for i in range(2)}
    assert set(everything["attention_0"]) == {"query", "key", "value", "out"}


def test_targets_that_match_nothing(model_config):
    """Catches: a fine-tune that trains nothing and says nothing."""
    config = dataclasses.replace(LORA, lora=LoraConfig(rank=3, targets="q_proj"))
    with pytest.raises(UserError, match=r"matches no weight of this model; its weights are attention_N/key"):
        trainable(model_config, config).abstract()


def test_new_adapters_change_nothing(model_config, params):
    """Catches: a random start that damages the model before the first step."""
    shapes, _ = lora.abstract(transformer.abstract(model_config)[0], transformer.specs(model_config), LORA.lora)
    merged = lora.merge(params, lora.init(shapes, jax.random.key(0)), LORA.lora)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_merging_adds_the_product(params):
    """Catches: axes of A and B that are joined in another order than the weight's; a scale of alpha alone."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 8, 3)).astype(np.float32), rng.normal(size=(3, 32)).astype(np.float32)
    adapters = {"attention_0": {"out": {"a": jnp.asarray(a), "b": jnp.asarray(b)}}}
    merged = lora.merge(params, adapters, LORA.lora)
    expected = params["attention_0"]["out"] + 2 * np.einsum("xhr,rd->xhd", a, b)
    np.testing.assert_allclose(merged["attention_0"]["out"], expected, atol=1e-5)
    assert merged["mlp_0"]["up"] is params["mlp_0"]["up"]


@pytest.mark.parametrize("shape", [MESHES[0], (2, 2, 2)])
def test_training_moves_the_adapters_alone(shape, model_config, params, tmp_path):
    """Catches: a loss that does not reach both factors, moments of the frozen weights, a sharding that does not fit."""
    mesh = mesh_of(*shape)
    batch = pack(pieces(), 48).take(np.arange(8))
    with use_mesh(mesh):
        placed = place(mesh, model_config, params)
        state = init_state(mesh, model_config, LORA, placed, seed=0)
        step, losses = make_step(model_config, LORA), []
        for _ in range(5):
            state, metrics = step(state, place_batch(mesh, batch), placed)
            losses.append(float(metrics["loss"]))
        after = trainable(model_config, LORA).merged(placed, state.params)
    assert losses[-1] < losses[0] - 0.05
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) < 0.6 * sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )
    before, now = (traverse_util.flatten_dict(tree, sep="/") for tree in (placed, after))
    changed = {path for path in before if not np.array_equal(before[path], now[path])}
    assert len(changed) == 2 * 7 and not any("norm" in name or "embedding" in name for name in changed)


def small_adapters(model_config, size):
    """Adapters whose products are about `size`, everywhere."""
    shapes, _ = lora.abstract(transformer.abstract(model_config)[0], transformer.specs(model_config), LORA.lora)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * size**0.5, jnp.float32), shapes)


@pytest.mark.parametrize(("shape", "remat"), [(MESHES[0], "full"), ((2, 2, 2), "none")])
def test_small_adapters_of_bfloat16_weights_are_heard_in_training(shape, remat, model_config, params):
    """Catches: adapters that are added to the weights and rounded away; other axes or another scale than merged ones have."""
    stored = dataclasses.replace(model_config, param_dtype="bfloat16")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    adapters = small_adapters(model_config, 3e-5)
    packed, config = pack(mixture(), 40, share=True), dataclasses.replace(LORA, remat=remat)
    rows = packed.take(np.arange(8) % len(packed))
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        batch, prompts = place_batch(mesh, rows), place_prompts(mesh, packed.prompts)
        merged = lambda own: batch_loss(model_config, lora.merge(wide, own, LORA.lora), batch, prompts).value  # noqa: E731
        before = float(jax.jit(merged)(jax.tree.map(jnp.zeros_like, adapters)))
        after, gradient = jax.jit(jax.value_and_grad(merged))(adapters)
    with use_mesh(mesh_of(*shape)) as mesh:
        frozen = place(mesh, stored, half)
        state = init_state(mesh, stored, config, frozen, seed=0)
        own = jax.tree.map(lambda new, old: jax.device_put(np.array(new), old.sharding), adapters, state.params)
        batch, prompts = place_batch(mesh, rows), place_prompts(mesh, packed.prompts)
        _, metrics = make_step(stored, config)(dataclasses.replace(state, params=own), batch, frozen, prompts)
    assert abs(float(after) - before) > 3e-5
    assert float(metrics["loss"]) - before == pytest.approx(float(after) - before, rel=0.05)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)


def test_a_bfloat16_model_learns_in_float32(model_config, params, tmp_path):
    """Catches: updates that are rounded away, as they are when the optimiser's copy is bfloat16."""
    config = dataclasses.replace(CONFIG, learning_rate=1e-5)
    stored = dataclasses.replace(model_config, param_dtype="bfloat16", dtype="bfloat16")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    mesh = mesh_of(1, 1, 1)
    with use_mesh(mesh):
        trained = train(mesh, stored, config, half, pack(pieces(), 48), seed=1, folder=tmp_path)
        after = trainable(stored, config).merged(half, trained)
    query = trained["attention_0"]["query"]
    assert query.dtype == jnp.float32 and after["attention_0"]["query"].dtype == jnp.bfloat16
    moved = np.abs(np.asarray(query) - np.asarray(half["attention_0"]["query"], np.float32))
    assert 0 < moved.max() < 1e-4
