"""What the logits say about targets, computed for some positions at a time or for all at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.model import readout, transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.readout import Readout, read_targets
from lmsi_jax.sharding.rules import jit, use_mesh
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.objective import Batch, cross_entropy, place_batch
from lmsi_jax.training.step import init_state, make_step
from lmsi_jax.training.trainable import AllWeights
from tests.conftest import MESHES, initial, mesh_of, place

SMALL = ModelConfig(vocab=50, width=8, layers=1, heads=1, kv_heads=1, head_width=8, mlp=8, context=128)


def read(config, params, states, targets, temperature=1.0):
    """The readout, and the gradient of a loss of all that has one, in the parameters and in the states."""

    def loss(params, states):
        of_targets = read_targets(config, params, states, targets, temperature)
        factors = jnp.arange(targets.size).reshape(targets.shape)  # another one for each target
        return jnp.sum(of_targets.logprob * factors + of_targets.normaliser**2), of_targets

    (_, of_targets), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, states)
    return of_targets, gradients


@pytest.mark.parametrize(("rows", "length", "at_a_time"), [(2, 6, 4), (3, 7, 6), (2, 5, 1)])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_any_part_of_the_positions_gives_what_all_give(rows, length, at_a_time, temperature, monkeypatch):
    """Catches: padding that counts, positions in another order, a gradient of one part only, a temperature left out."""
    with use_mesh(mesh_of(1, 1, 1)):
        params = initial(SMALL)
        states = jax.random.normal(jax.random.key(1), (rows, length, SMALL.width))
        targets = jax.random.randint(jax.random.key(2), (rows, length), 0, SMALL.vocab)
        whole = jax.jit(lambda: read(SMALL, params, states, targets, temperature))()
        monkeypatch.setattr(readout, "LOGITS", at_a_time * SMALL.vocab)
        parts = jax.jit(lambda: read(SMALL, params, states, targets, temperature))()
        logits = np.asarray(transformer.logits(SMALL, params, states), np.float64) / temperature
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), parts, whole)
    normaliser = np.log(np.exp(logits).sum(-1))
    shares = np.exp(logits - normaliser[..., None])
    of_target = np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
    entropy = -(shares * np.log(shares)).sum(-1)
    expected = Readout(of_target - normaliser, of_target == logits.max(-1), normaliser, entropy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), parts[0], expected)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_devices_read_their_own_rows(shape, model_config, params, monkeypatch):
    """Catches: a share of the logits that is counted for one device and given to all; rows that change places."""
    states = jax.random.normal(jax.random.key(1), (8, 6, model_config.width))
    targets = jax.random.randint(jax.random.key(2), (8, 6), 0, model_config.vocab)
    monkeypatch.setattr(readout, "LOGITS", 3 * model_config.vocab)
    found = []
    for mesh in (mesh_of(1, 1, 1), mesh_of(*shape)):
        with use_mesh(mesh):
            placed = place(mesh, model_config, params)
            found.append(jit(lambda params, *arrays: read(model_config, params, *arrays))(placed, states, targets))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *map(jax.device_get, found))


def test_a_step_needs_no_memory_for_all_logits(monkeypatch):
    """Catches: logits that are kept for the backward pass after all."""
    config = dataclasses.replace(SMALL, vocab=16_384)
    mesh, weights, train = mesh_of(1, 1, 1), AllWeights(config), UpdateConfig(warmup=0)
    row = np.ones((4, 128), np.int32)
    rows = {
        "tokens": row,
        "targets": row,
        "weights": row.astype(np.float32),
        "segments": row,
        "positions": np.arange(128) * row,
    }
    all_logits = row.size * config.vocab * 4
    used = {}
    with use_mesh(mesh):
        state = init_state(mesh, weights, train, initial(config), 0)
        batch = place_batch(mesh, Batch({**rows, "prompt": np.zeros(4, np.int32)}))
        for at_a_time in (row.size, row.size // 16):
            monkeypatch.setattr(readout, "LOGITS", at_a_time * config.vocab)
            make_step.cache_clear()
            step = make_step(cross_entropy(config), weights, train)
            used[at_a_time] = step.lower(state, batch, {}).compile().memory_analysis().temp_size_in_bytes
    assert min(used.values()) < 0.5 * all_logits < all_logits < max(used.values()), used
