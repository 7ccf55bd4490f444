"""Workload V: paths of very different lengths, with and without refilling slots.

Run it with `python -m lmsi_jax.benchmarks.decode --workload=V`. Lengths are lognormal with a mean of 64 tokens (median 42),
clipped at 256. A path has the same scripted length in both cases. Without refilling, a batch of questions waits for its
longest path, as on a server with static batches.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmsi_jax.benchmarks.workloads import PATHS, Ids, Workload, limits, prompts
from lmsi_jax.core.rng import path_keys
from lmsi_jax.decoding.config import Sampling
from lmsi_jax.decoding.engine import Context, LogitsFunction, State, model_logits
from lmsi_jax.decoding.prefill import Cache
from lmsi_jax.decoding.scheduler import Engine
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import use_mesh

LONGEST, LOG_MEDIAN = 256, 3.741  # with a standard deviation of 1 in the logarithm, the mean is 64
QUESTIONS, WITHOUT = 256, 64  # questions with refilling and without, where fewer are enough to measure the speed
REFILLED, FIXED = (16, 8), (4, 32)  # (lanes, slots), 128 rows in both cases


def length(question: Int[Array, " n"], path: Int[Array, " n"]) -> Int[Array, " n"]:
    """Return the scripted length of each path, in tokens."""
    keys = path_keys(jax.random.key(7), question, path)
    drawn = jnp.exp(LOG_MEDIAN + jax.vmap(jax.random.normal)(keys))
    return jnp.clip(jnp.round(drawn), 1, LONGEST).astype(jnp.int32)


def scripted_ends(end: int) -> LogitsFunction:
    """Return the model's logits function with `end` forced at a path's scripted length and impossible before it."""

    def logits(config: ModelConfig, params: Any, context: Context, state: State) -> tuple[Float[Array, "n v"], Cache]:
        values, cache = model_logits(config, params, context, state)
        ids = state.of_slot(state.questions.id).reshape(-1)
        reached = state.position.reshape(-1) + 1 >= length(ids, (state.path % state.paths).reshape(-1))
        is_end = jnp.arange(config.vocab)[None, :] == end
        return jnp.where(is_end == reached[:, None], values, -jnp.inf), cache

    return logits


def paths_per_second(workload: Workload, refill: bool) -> tuple[float, float]:
    """Return the paths per second and the engine's utilisation, without compilation."""
    config, mesh = workload.model, make_mesh(MeshConfig())
    lanes, slots = REFILLED if refill else FIXED
    few_shot, requests = prompts(workload, QUESTIONS, seed=0)
    batches = [requests] if refill else [requests[i : i + lanes] for i in range(0, WITHOUT, lanes)]
    tokens = Ids(config.vocab)
    tokens.ends = (config.vocab - 1,)
    sampling, key = Sampling(paths=PATHS, temperature=0.7, max_tokens=LONGEST, stops=()), jax.random.key(1)
    with use_mesh(mesh):
        params = transformer.init(config, jax.random.key(0))
        shapes = limits(workload, lanes, slots, LONGEST)
        engine = Engine(mesh, config, tokens, shapes, logits=scripted_ends(config.vocab - 1))
        prefix = engine.prefill(params, few_shot)
        list(engine.sample(params, prefix, batches[0][:1], sampling, key))
        engine.live_slot_steps = engine.slot_steps = 0
        start = time.perf_counter()
        count = sum(len(paths) for batch in batches for paths in engine.sample(params, prefix, batch, sampling, key))
        return count / (time.perf_counter() - start), engine.utilisation
