import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lmsi_jax.model import lora, transformer
from lmsi_jax.model.attention import KVBlock, attend
from lmsi_jax.model.config import LoraConfig, ModelConfig
from lmsi_jax.model.quantize import Quantized, quantize
from lmsi_jax.sharding.rules import constrain, use_mesh
from tests.conftest import MESHES, forward, initial, mesh_of, place


def causal(n, t):
    return jnp.broadcast_to(jnp.tril(jnp.ones((t, t), bool))[None], (n, t, t))


def full_forward(config, params, tokens):
    n, t = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(t)[None], (n, t))
    return forward(config, params, tokens, positions, causal(n, t))


def test_logits_depend_on_earlier_tokens_only(model_config, params):
    """Catches: a mask off by one, which lets a token see itself being predicted."""
    tokens = jax.random.randint(jax.random.key(0), (1, 12), 0, 400)
    changed = tokens.at[0, 7].add(1)
    with use_mesh(mesh_of(1, 1, 1)):
        before, _ = full_forward(model_config, params, tokens)
        after, _ = full_forward(model_config, params, changed)
    same = np.isclose(before, after, atol=1e-6).all(axis=(0, 2))
    assert same[:7].all()
    assert not same[7:].any()


def test_positions_matter(model_config, params):
    """Catches: RoPE left out, or applied to the queries alone."""
    with use_mesh(mesh_of(1, 1, 1)):
        forth, _ = full_forward(model_config, params, jnp.array([[5, 6, 7, 8]]))
        back, _ = full_forward(model_config, params, jnp.array([[7, 6, 5, 8]]))
    assert not np.allclose(forth[0, -1], back[0, -1], atol=1e-4)


def test_cached_blocks_equal_one_pass(model_config, params):
    """Catches: wrong positions or masks when a sequence is computed in pieces, part of it shared between rows."""
    prefix = jax.random.randint(jax.random.key(1), (1, 6), 0, 400)
    rest = jax.random.randint(jax.random.key(2), (3, 5), 0, 400)
    whole = jnp.concatenate([jnp.tile(prefix, (3, 1)), rest], axis=1)
    with use_mesh(mesh_of(1, 1, 1)):
        expected, _ = full_forward(model_config, params, whole)
        _, cache = full_forward(model_config, params, prefix)
        past = [[KVBlock(k, v, jnp.ones((1, 6), bool), jnp.arange(6)[None])] for k, v in cache]
        positions = jnp.broadcast_to(6 + jnp.arange(5)[None], (3, 5))
        got, _ = forward(model_config, params, rest, positions, causal(3, 5), past)
    np.testing.assert_allclose(got, expected[:, 6:], atol=2e-5)


def test_attention_over_blocks_equals_attention_over_their_concatenation():
    """Catches: a softmax for each block instead of one over all, or query rows matched to the wrong block row."""
    keys = jax.random.split(jax.random.key(0), 5)
    query = jax.random.normal(keys[0], (6, 1, 4, 8))
    shared = [jax.random.normal(k, (2, 2, 3, 8)) for k in keys[1:3]]
    own = [jax.random.normal(k, (6, 2, 2, 8)) for k in keys[3:5]]
    mask = jnp.array([[True, True, False], [True, True, True]])
    blocks = [KVBlock(*shared, mask, jnp.arange(3)[None]), KVBlock(*own, jnp.ones((6, 2), bool), 3 + jnp.arange(2)[None])]
    got = attend(query, jnp.full((6, 1), 4), blocks, scale=1 / np.sqrt(8))
    joined = [jnp.concatenate([jnp.repeat(a, 3, axis=0), b], axis=2) for a, b in zip(shared, own, strict=True)]
    both = jnp.concatenate([jnp.repeat(mask, 3, axis=0), jnp.ones((6, 2), bool)], axis=1)
    scores = jnp.einsum("nxh,nxsh->nxs", query[:, 0], jnp.repeat(joined[0], 2, axis=1)) / np.sqrt(8)
    weights = jax.nn.softmax(jnp.where(both[:, None], scores, -jnp.inf), axis=-1)
    expected = jnp.einsum("nxs,nxsh->nxh", weights, jnp.repeat(joined[1], 2, axis=1))
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("at_a_time", [1, 3, 4])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (3, 5.0)])
def test_attention_for_some_queries_at_a_time(at_a_time, window, softcap):
    """Catches: a mask or positions of other queries, padding that is read, a gradient of the last queries alone."""
    keys = jax.random.split(jax.random.key(0), 5)
    shared, own = jax.random.normal(keys[0], (2, 1, 2, 5, 8)), jax.random.normal(keys[1], (2, 4, 2, 7, 8))
    seen = jnp.tril(jax.random.bernoulli(keys[2], 0.7, (4, 7, 7))) | jnp.eye(7, dtype=bool)[None]
    positions = jnp.broadcast_to(5 + jnp.arange(7), (4, 7))

    def read(query, shared, own, at_a_time):
        blocks = [KVBlock(*shared, jnp.ones((1, 5), bool), jnp.arange(5)[None]), KVBlock(*own, seen, positions)]
        return attend(query, positions, blocks, scale=0.3, softcap=softcap, window=window, at_a_time=at_a_time)

    query, weights = jax.random.normal(keys[3], (4, 7, 4, 8)), jax.random.normal(keys[4], (4, 7, 4, 8))
    total = lambda *arrays: jnp.sum(read(*arrays) * weights)  # noqa: E731
    of = jax.jit(lambda *arrays: (read(*arrays), jax.grad(total, (0, 1, 2))(*arrays)), static_argnums=3)
    whole, parts = of(query, shared, own, 0), of(query, shared, own, at_a_time)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), parts, whole)


def test_scores_of_some_queries_are_all_that_is_in_memory():
    """Catches: scores that are kept for the backward pass after all."""
    arrays = jnp.ones((1, 512, 4, 8)), jnp.ones((1, 4, 512, 8)), jnp.ones((1, 4, 512, 8))
    positions, mask = jnp.arange(512)[None], causal(1, 512)

    def temporary(at_a_time):
        def total(query, key, value):
            block = KVBlock(key, value, mask, positions)
            return jnp.sum(attend(query, positions, [block], scale=0.3, at_a_time=at_a_time))

        return jax.jit(jax.grad(total, (0, 1, 2))).lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    assert temporary(32) < 4 * 512 * 512 * 4 < temporary(0)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_sharded_equals_unsharded(shape, model_config, params):
    """Catches: a rule or constraint that changes the numbers."""
    tokens = jax.random.randint(jax.random.key(0), (8, 10), 0, 400)
    with use_mesh(mesh_of(1, 1, 1)):
        expected, _ = full_forward(model_config, params, tokens)
    mesh = mesh_of(*shape)
    with use_mesh(mesh):
        got, _ = jax.jit(lambda p, t: full_forward(model_config, p, t))(place(mesh, model_config, params), tokens)
    np.testing.assert_allclose(np.asarray(got), expected, atol=2e-5)


def test_large_weights_are_sharded(model_config, params):
    """Catches: a weight whose logical axes are missing from the rules, so that every device holds all of it."""
    mesh = mesh_of(2, 2, 2)
    placed = place(mesh, model_config, params)
    whole = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(placed)
        if leaf.ndim > 1 and leaf.sharding.is_fully_replicated
    ]
    assert not whole


def test_constrain_outside_a_mesh_raises():
    """Catches: constraints that silently do nothing where no rules are set."""
    with pytest.raises(RuntimeError, match="use_mesh"):
        constrain(jnp.zeros((2, 2)), "batch", None)


def test_count_params_of_a_known_size():
    """Catches: a weight declared with a wrong axis."""
    c = ModelConfig(vocab=768, width=128, layers=4, heads=4, kv_heads=2, head_width=32, mlp=512)
    attention = 2 * 128 * 4 * 32 + 2 * 128 * 2 * 32
    assert transformer.count_params(c) == 768 * 128 + 4 * (attention + 3 * 128 * 512 + 2 * 128) + 128


FEATURES = {"qkv_bias": True, "qk_norm": True, "post_norms": True, "tied_embedding": False, "logit_softcap": 3.0}
MATRICES = {
    *(f"attention_{i}/{name}" for i in range(2) for name in ("query", "key", "value", "out")),
    *(f"mlp_{i}/{name}" for i in range(2) for name in ("gate", "up", "down")),
}


@pytest.fixture(scope="module")
def everything(model_config):
    """A model with every kind of weight, all of them random, and its specs by path."""
    config = dataclasses.replace(model_config, **FEATURES)
    shapes, rng = transformer.abstract(config)[0], np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), shapes)
    return config, params, flatten_dict(transformer.specs(config), sep="/")


def adapted(config, params):
    settings, rng = LoraConfig(rank=2), np.random.default_rng(1)
    shapes, _ = lora.abstract(transformer.abstract(config)[0], transformer.specs(config), settings)
    adapters = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)
    return lora.Adapted(params, adapters, settings)


def stored(params, name):
    """A table of a model of any kind, as it is computed with."""
    if isinstance(params, Quantized):
        return params.values[name] * params.scales[name]
    return (params.params if isinstance(params, lora.Adapted) else params)[name]


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        (FEATURES, "plain"),
        (FEATURES, "quantised"),
        ({}, "adapted"),
        ({"dtype": "bfloat16", "parallel": True, "norm": "layer"}, "adapted"),
    ],
)
def test_logits_of_hidden_states_are_those_of_one_pass(features, kind, model_config):
    """Catches: hidden states before the final norm, logits without their bound, or of the embedding where it is not tied."""
    config = dataclasses.replace(model_config, **features)
    tokens = jax.random.randint(jax.random.key(0), (2, 9), 0, 400)
    positions = jnp.broadcast_to(jnp.arange(9)[None], (2, 9))
    with use_mesh(mesh_of(1, 1, 1)):
        params = initial(config, 1)
        if kind == "adapted":
            params = adapted(config, params)
        elif kind == "quantised":
            params = quantize(params, transformer.specs(config))
        expected, cache = transformer.forward(config, params, tokens, positions, causal(2, 9))
        states, own_cache = transformer.hidden(config, params, tokens, positions, causal(2, 9))
        got = transformer.logits(config, params, states)
    assert states.shape == (2, 9, 32) and got.dtype == expected.dtype == jnp.float32
    np.testing.assert_array_equal(got, expected)
    jax.tree.map(np.testing.assert_array_equal, own_cache, cache)
    size = np.sqrt(np.mean(np.square(states, dtype=np.float64), axis=-1))
    np.testing.assert_allclose(size, 1, rtol=0.01)  # those of a norm with scales of 1
    name = "embedding" if config.tied_embedding else "unembedding"
    plain = np.asarray(states, np.float64) @ np.asarray(stored(params, name).astype(config.dtype), np.float64).T
    bounded = config.logit_softcap * np.tanh(plain / config.logit_softcap) if config.logit_softcap else plain
    np.testing.assert_allclose(expected, bounded, atol=1e-4)


def test_each_weight_has_its_own_name_in_a_folder(everything):
    """Catches: two weights that are read from one tensor, as two norms of a layer may be; an axis that no file has."""
    config, params, specs = everything
    assert specs.keys() == flatten_dict(params, sep="/").keys()
    names = [spec.file_name for spec in specs.values()]
    assert len(names) == len(set(names))
    for path, weight in flatten_dict(params, sep="/").items():
        spec = specs[path]
        assert sorted(axis for axes in spec.file_axes for axis in axes) == list(range(weight.ndim)), path
        assert len(spec.axes) == weight.ndim and 1 <= len(spec.file_axes) <= 2, path


def test_scales_and_biases_neither_decay_nor_are_quantised(everything):
    """Catches: a bias or a norm's scale that weight decay shrinks or 8 bits round, and a matrix that is left out."""
    config, params, specs = everything
    vectors = {path for path in specs if "norm" in path or path.endswith("_bias")}
    assert {path.split("/")[1] for path in vectors} >= {"scale", "query_bias", "key_bias", "value_bias"}
    assert {path.rpartition("/")[0] or path for path in vectors} >= {"final_norm", "attention_0/query_norm", "mlp_post_norm_1"}
    assert specs.keys() - vectors == MATRICES | {"embedding", "unembedding"}
    assert {path for path, spec in specs.items() if not spec.decays} == vectors
    with use_mesh(mesh_of(1, 1, 1)):
        rounded = quantize(params, transformer.specs(config))
    values, before = (flatten_dict(tree, sep="/") for tree in (rounded.values, params))
    assert {path for path, value in values.items() if value.dtype == jnp.int8} == specs.keys() - vectors
    assert flatten_dict(rounded.scales, sep="/").keys() == specs.keys() - vectors
    for path in vectors:
        np.testing.assert_array_equal(values[path], before[path])


def test_adapters_may_stand_beside_the_matrices_of_layers_alone(everything):
    """Catches: adapters of a bias, a norm or an embedding, or a matrix that cannot have any."""
    config, params, specs = everything
    assert {path for path, spec in specs.items() if spec.adaptable} == MATRICES
    shapes, _ = lora.abstract(params, transformer.specs(config), LoraConfig(rank=2, targets=".*"))
    assert {path.rpartition("/")[0] for path in flatten_dict(shapes, sep="/")} == MATRICES
    assert jax.tree.leaves(lora.abstract(params, transformer.specs(config), LoraConfig(rank=2))[0]) == jax.tree.leaves(shapes)
