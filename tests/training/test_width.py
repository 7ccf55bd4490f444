"""Transfer of the learning rate across widths: a coordinate check (Yang et al. 2022, appendix D.1)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmsi_jax.model import transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.model.config import LoraConfig, ModelConfig
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.objective import Batch, cross_entropy
from lmsi_jax.training.step import init_state, make_step
from lmsi_jax.training.trainable import AllWeights, LowRankAdapters
from tests.conftest import initial, mesh_of

WIDTHS = (64, 256)


def config_of(width, base):
    heads = width // 16
    return ModelConfig(
        vocab=64, width=width, layers=2, heads=heads, kv_heads=heads, head_width=16, mlp=2 * width, scaled_embedding=True,
        base_width=base,
    )  # fmt: skip


def movement(width, base):
    """How far three steps of Adam move the logits and the last hidden states of the same tokens, root mean square."""
    config = config_of(width, base)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 64, (4, 17)).astype(np.int32)
    ones = np.ones((4, 16), np.int32)
    rows = {
        "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segments": ones, "weights": ones.astype(np.float32),
        "positions": np.broadcast_to(np.arange(16, dtype=np.int32), (4, 16)), "prompt": np.zeros(4, np.int32),
    }  # fmt: skip
    batch = Batch({name: jnp.asarray(array) for name, array in rows.items()})
    train = TrainConfig(steps=10, learning_rate=1e-3, schedule="constant", warmup=0, weight_decay=0.0, clip=1e9)
    mesh, weights = mesh_of(1, 1, 1), AllWeights(config)
    with use_mesh(mesh):
        params = initial(config)

        @jax.jit
        def outputs(params):
            states, _ = transformer.hidden(config, params, batch.rows["tokens"], *causal(4, 16))
            return states, transformer.logits(config, params, states)

        before = outputs(params)
        step, state = make_step(cross_entropy(config), weights, train), init_state(mesh, weights, train, params, 0)
        for _ in range(3):
            state, _ = step(state, batch, {})
        after = outputs(state.params)
    return [float(jnp.sqrt(jnp.mean((b - a) ** 2))) for a, b in zip(before, after, strict=True)]


def exponents(base):
    moved = np.log([movement(width, base) for width in WIDTHS])
    return [np.polyfit(np.log(WIDTHS), moved[:, i], 1)[0] for i in range(2)]


def test_steps_move_activations_alike_at_every_width():
    """Catches: a learning rate or a multiplier of another power of the width, with which wide models move further."""
    states, logits = exponents(base=64)
    assert abs(states) < 0.2 and abs(logits) < 0.35, (states, logits)
    assert min(exponents(base=0)) > 0.5, "the standard parametrisation moves wide models further"


def test_the_base_width_is_the_standard_parametrisation():
    """Catches: a factor that is not 1 at the base width; adapters whose rate depends on it."""
    same = AllWeights(config_of(64, 64)).rate_factors()
    assert set(jax.tree.leaves(same)) == {1.0}
    factors = AllWeights(config_of(256, 64)).rate_factors()
    assert factors["attention_0"]["query"] == factors["mlp_1"]["down"] == 0.25
    assert factors["embedding"] == 0.5 and factors["final_norm"]["scale"] == 1
    adapters = LowRankAdapters(config_of(256, 64), LoraConfig(rank=2)).rate_factors()
    assert set(jax.tree.leaves(adapters)) == {1.0}
    with use_mesh(mesh_of(1, 1, 1)):
        params = initial(config_of(256, 64))
        states = jnp.ones((1, 2, 256))
        narrow = transformer.logits(config_of(256, 64), params, states)
        standard = transformer.logits(dataclasses.replace(config_of(256, 64), base_width=0), params, states)
    np.testing.assert_allclose(narrow, 0.5 * standard, rtol=1e-6)
