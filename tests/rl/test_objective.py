"""The objective over packed rows, against each path computed alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.model import transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.rl.config import RlConfig
from lmsi_jax.rl.losses import weights
from lmsi_jax.rl.objective import policy_objective
from lmsi_jax.rl.rows import PROMPT_BUCKET, Path, pack_paths
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.objective import Batch, place_batch, place_prompts
from tests.conftest import mesh_of

PROMPTS = ((5, 6, 7), (8, 9, 10, 11, 12, 13))
PATHS = ((0, (20, 0, 2)), (0, (2,)), (1, (30, 31, 2, 33)), (1, (0,)), (1, (40, 2)))  # rows are padded with 0, and 2 ends a text


@functools.cache
def _logits(config):
    return jax.jit(lambda params, ids: transformer.forward(config, params, ids, *causal(*ids.shape))[0])


def alone(config, params, prompt, tokens, temperature):
    """The log-probabilities of all tokens of the vocabulary before each token of a path: (tokens, vocab)."""
    ids = jnp.asarray([[*prompt, *tokens]], jnp.int32)
    logits = _logits(config)(params, ids)
    return np.asarray(jax.nn.log_softmax(logits[0, len(prompt) - 1 : -1] / temperature), np.float64)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_rows_have_the_loss_and_the_metrics_of_their_paths(estimator, model_config, params):
    """Catches: means over padding, a mask by the id of an end or of padding, an end without loss, positions behind the longest
    prompt, stale paths that are treated as on-policy, a divergence by another estimator."""
    rl, rng = RlConfig(temperature=0.7, beta=0.5, kl_estimator=estimator), np.random.default_rng(0)
    with use_mesh(mesh := mesh_of(1, 1, 1)):
        of_all = [alone(model_config, params, PROMPTS[prompt], tokens, rl.temperature) for prompt, tokens in PATHS]
        own = [each[np.arange(len(tokens)), tokens] for each, (_, tokens) in zip(of_all, PATHS, strict=True)]
        old, reference = ([each + rng.normal(scale=0.3, size=len(each)) for each in own] for _ in range(2))
        advantages = rng.normal(size=len(PATHS))
        x, a = np.concatenate(own) - np.concatenate(old), np.repeat(advantages, [len(tokens) for _, tokens in PATHS])
        d = np.concatenate(own) - np.concatenate(reference)
        k2, k3 = d**2 / 2, np.exp(-d) - 1 + d
        losses = -np.minimum(np.exp(x) * a, np.clip(np.exp(x), 0.8, 1.28) * a) + 0.5 * (k2 if estimator == "k2" else k3)
        entropies = np.concatenate([-(np.exp(each) * each).sum(axis=1) for each in of_all])
        expected = {"loss": losses, "entropy": entropies, "ratio": np.exp(x), "approx_kl": -x, "kl": k3}
        paths = [Path(prompt, tokens, each.tolist()) for (prompt, tokens), each in zip(PATHS, old, strict=True)]
        for row_length, rows in ((4, 1), (24, 8)):
            packed = pack_paths(PROMPTS, paths, row_length, rows)
            arrays = {
                "advantages": packed.spread(advantages.tolist()),
                "reference_logprobs": packed.spread([each.tolist() for each in reference]),
                "weights": weights(packed.arrays["sequences"], "token", 1).astype(np.float32),
            }
            batch = Batch(packed.arrays | arrays, place_prompts(mesh, packed.prompts, PROMPT_BUCKET))
            loss, metrics = jax.jit(policy_objective(model_config, rl))(params, place_batch(mesh, batch))
            for name, mean in {"loss": loss, **metrics}.items():
                assert mean.count == len(x), name
                if name in expected:
                    np.testing.assert_allclose(mean.value, expected[name].mean(), rtol=1e-4, atol=1e-5, err_msg=name)
            assert expected.keys() <= {"loss", *metrics}
