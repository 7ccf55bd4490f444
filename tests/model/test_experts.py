"""A mixture of experts: against a dense reference, on meshes, token by token, in training and in decoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import build
from lmsi_jax.decoding.config import Sampling
from lmsi_jax.decoding.engine import Limits
from lmsi_jax.decoding.scheduler import Engine, Request
from lmsi_jax.model import transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.model.config import ExpertsConfig, ModelConfig
from lmsi_jax.model.experts import ExpertWeights, balance, choose, mixture
from lmsi_jax.model.flops import training_flops
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import param_shardings, use_mesh
from lmsi_jax.training.config import RouterConfig
from lmsi_jax.training.objective import Batch, cross_entropy
from lmsi_jax.training.step import gradients
from tests.conftest import initial

EXPERTS = ExpertsConfig(count=8, per_token=2, mlp=16, shared_mlp=24, dense_layers=(0,))
CONFIG = ModelConfig(
    vocab=400, width=32, layers=2, heads=4, kv_heads=2, head_width=8, mlp=64, context=512, experts=EXPERTS
)  # fmt: skip
MESHES = [(1, 1, 1, 1), (2, 2, 2, 1), (1, 1, 1, 4), (1, 2, 1, 4), (2, 1, 2, 2)]


def mesh_of(*sizes):
    return make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])


def arrays(seed=0, n=8, t=5, d=12, m=6, e=8, k=3):
    rng = np.random.default_rng(seed)
    x, logits = rng.standard_normal((n, t, d)), 2 * rng.standard_normal((n, t, e))
    shapes = ((e, d, m), (e, d, m), (e, m, d))
    return jnp.float32(x), jnp.float32(logits), ExpertWeights(*(jnp.float32(rng.standard_normal(s)) for s in shapes)), k


def dense(x, logits, matrices, k):
    """All experts on all tokens; those that are not chosen have the weight 0."""
    weights, chosen = choose(logits, k, renormalised=False)
    given = jnp.sum(jax.nn.one_hot(chosen, logits.shape[-1]) * weights[..., None], axis=2)
    hidden = jax.nn.silu(jnp.einsum("ntd,edm->ntem", x, matrices.gate)) * jnp.einsum("ntd,edm->ntem", x, matrices.up)
    return jnp.einsum("nte,ntem,emd->ntd", given, hidden, matrices.down)


def sparse(x, logits, matrices, k):
    return mixture(x, *choose(logits, k, renormalised=False), matrices, jax.nn.silu)


def value_and_gradients(function, k):
    def of(x, logits, matrices):
        gradients = jax.grad(lambda *inputs: jnp.sum(function(*inputs, k) ** 2), (0, 1, 2))(x, logits, matrices)
        return function(x, logits, matrices, k), gradients

    return of


@pytest.mark.parametrize("sizes", MESHES)
@pytest.mark.parametrize("rows", [8, 3])
def test_values_and_gradients_are_those_of_a_dense_reference(rows, sizes):
    """Catches: an output of another token or expert, a gradient that misses a path, tokens that are lost between devices."""
    x, logits, matrices, k = arrays(n=rows)
    logits = logits.at[:, :, 0].add(
        jnp.where(jnp.arange(rows)[:, None] < 2, 9.0, 0.0)
    )  # uneven, and some experts have no token
    logits = logits.at[:, :, 5].add(-50)
    with use_mesh(mesh_of(*sizes)):
        found, wanted = (jax.jit(value_and_gradients(function, k))(x, logits, matrices) for function in (sparse, dense))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.max(jnp.abs(b))))


def test_weights_are_probabilities_or_add_up_to_one():
    """Catches: a softmax over the chosen experts where the model has one over all, or the other way round."""
    logits = jnp.log(jnp.array([[[0.5, 0.2, 0.25, 0.05]]]))
    weights, chosen = choose(logits, 2, renormalised=False)
    np.testing.assert_allclose(weights[0, 0], [0.5, 0.25], rtol=1e-6)
    assert chosen[0, 0].tolist() == [0, 2]
    np.testing.assert_allclose(choose(logits, 2, renormalised=True)[0][0, 0], [2 / 3, 1 / 3], rtol=1e-6)


def test_a_token_does_not_depend_on_its_neighbours():
    """Catches: a capacity, and sums whose order depends on how many tokens an expert has; the result is the same to the bit."""
    x, logits, matrices, k = arrays()
    with use_mesh(mesh_of(1, 1, 1, 1)):
        run = jax.jit(sparse, static_argnums=3)
        alone = run(x, logits, matrices, k)
        crowded = run(x, logits.at[1:, :, 2].add(30.0), matrices, k)  # all other tokens go to expert 2
    assert (alone[0] == crowded[0]).all() and not (alone[1:] == crowded[1:]).all()


def test_balance_of_even_and_of_collapsed_routers():
    """Catches: a loss that collapse makes smaller, padding that counts, a share of another denominator."""
    even = jnp.log(jnp.eye(4) + 1e-4)[None]
    counted = jnp.ones((1, 4))
    value, _, load, _ = balance(even, 1, counted)
    assert float(value) == pytest.approx(1, abs=1e-3) and float(load) == 1
    collapsed = jnp.broadcast_to(jnp.array([40.0, 0, 0, 0]), (1, 4, 4))
    value, z, load, entropy = map(float, balance(collapsed, 1, counted))
    assert value == pytest.approx(4) and load == 4 and z == pytest.approx(1600) and entropy == pytest.approx(0, abs=1e-4)
    padded = jnp.concatenate([even, collapsed], axis=1)
    seen = jnp.concatenate([counted, 0 * counted], axis=1)
    np.testing.assert_allclose(balance(padded, 1, seen), balance(even, 1, counted), rtol=1e-6)
    flat = balance(jnp.zeros((1, 4, 4)), 2, counted)
    assert float(flat[3]) == pytest.approx(np.log(4))


def rows_of(count=4, length=12, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 400, (count, length + 1)).astype(np.int32)
    segments = np.ones((count, length), np.int32)
    segments[0, 8:] = 0
    weights = segments.astype(np.float32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), segments.shape)
    rows = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segments": segments,
        "weights": weights,
        "positions": positions,
    }
    return {name: jnp.asarray(array) for name, array in rows.items()} | {"prompt": jnp.zeros(count, jnp.int32)}


@pytest.mark.parametrize("remat", ["none", "full"])
def test_training_has_the_losses_of_its_routers(remat):
    """Catches: a coefficient without an effect, a loss that validation counts too, recomputation that loses the routers."""
    batch = Batch(rows_of())
    with use_mesh(mesh_of(1, 1, 1, 1)):
        params = initial(CONFIG)
        plain, measured = jax.jit(cross_entropy(CONFIG, remat))(params, batch)
        loss, _ = jax.jit(cross_entropy(CONFIG, remat, router=RouterConfig(balance=0.5, z_loss=0.25)))(params, batch)
        values = {name: float(mean.value) for name, mean in measured.items()}
        assert float(loss.value) == pytest.approx(
            float(plain.value) + 0.5 * values["router_balance"] + 0.25 * values["router_z"], rel=1e-5
        )
        assert 1 <= values["router_load"] <= 8 and 0 < values["router_entropy"] <= np.log(8) + 1e-6
        objective = cross_entropy(CONFIG, remat, router=RouterConfig(balance=1.0))
        _, _, grads = jax.jit(lambda p: gradients(objective, p, batch, 1))(params)
        assert float(jnp.max(jnp.abs(grads["experts_1"]["router"]))) > 0
        with_dense = dataclasses.replace(CONFIG, experts=ExpertsConfig())
        assert jax.jit(cross_entropy(with_dense))(initial(with_dense), batch)[1] == {}


def test_logits_are_the_same_on_every_mesh():
    """Catches: weights of experts that are split another way than their inputs."""
    tokens = jnp.asarray(rows_of(8)["tokens"])
    results = []
    for sizes in MESHES:
        mesh = mesh_of(*sizes)
        with use_mesh(mesh):
            params = transformer.init_sharded(mesh, CONFIG, jax.random.key(0))
            run = jax.jit(lambda p: transformer.forward(CONFIG, p, tokens, *causal(*tokens.shape))[0])
            results.append(np.asarray(run(params)))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=2e-5)


def test_paths_are_the_same_in_any_batch_and_on_any_mesh(tokenizer):
    """Catches: a text that depends on the questions beside it."""
    config = dataclasses.replace(CONFIG, vocab=tokenizer.vocab)
    texts = {}
    for sizes, asked in (
        ((1, 1, 1, 1), (0, 1, 2, 3)),
        ((1, 1, 1, 1), (2,)),
        ((1, 1, 1, 4), (3, 2, 1, 0)),
        ((2, 2, 2, 1), (2, 0)),
    ):
        mesh = mesh_of(*sizes)
        with use_mesh(mesh):
            params = transformer.init_sharded(mesh, config, jax.random.key(1))
            engine = Engine(mesh, config, tokenizer, Limits(paths=3, max_tokens=8, question=24, lanes=8, slots=3))
            requests = [Request(str(i), f"Ann has {i} cows.") for i in asked]
            sampling = Sampling(paths=3, temperature=1.0, max_tokens=8, stops=("\n\n",))
            prefix = engine.prefill(params, "Q: Tom has 3 cows.\nA: 3.\n\n")
            for paths in engine.sample(params, prefix, requests, sampling, jax.random.key(0)):
                texts.setdefault(paths[0].id, set()).add(tuple(path.text for path in paths))
    assert len(texts) == 4 and all(len(different) == 1 for different in texts.values()), texts


def test_active_parameters_count_in_operations():
    """Catches: the operations of experts that a token does not use."""
    total, active = transformer.count_params(CONFIG), transformer.count_active_params(CONFIG)
    assert total - active == 6 * 3 * 32 * 16, "six unused experts of one layer"
    plain = dataclasses.replace(CONFIG, experts=ExpertsConfig())
    assert transformer.count_params(plain) == transformer.count_active_params(plain)
    more = dataclasses.replace(CONFIG, experts=dataclasses.replace(EXPERTS, count=16))
    added = training_flops(more, 4, 16) - training_flops(CONFIG, 4, 16)
    assert added == 6 * 4 * 16 * 8 * CONFIG.width, "only the router is larger"


def test_experts_lie_on_their_axis_of_the_mesh():
    """Catches: a copy of all experts on every device."""
    mesh = mesh_of(1, 2, 1, 4)
    places = param_shardings(mesh, *transformer.abstract(CONFIG))
    assert places["experts_1"]["gate"].shard_shape((8, 32, 16)) == (2, 16, 16)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"experts": {"count": 4, "per_token": 5}}, "experts.per_token=5 is more than experts.count=4"),
        ({"experts": {"mlp": 8}}, "experts.count=0, and other settings"),
        ({"layers": 2, "experts": {"count": 4, "dense_layers": [2]}}, "must be within 0..1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, problem):
    with pytest.raises(UserError, match=problem):
        build(ModelConfig, settings)
