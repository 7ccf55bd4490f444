"""Paths of very different lengths, with and without refilled slots: `python -m lmsi_jax.benchmarks.decode --workload=V`.

Lengths are lognormal, of mean 64 tokens (median 42) and cut at 256; which path has which is a script, the same for both.
Without refill a batch of questions waits for its longest path, as a server of fixed batches does.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from unittest import mock

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from lmsi_jax import model
from lmsi_jax.benchmarks.workloads import PATHS, Ids, Workload, prompts
from lmsi_jax.core.config import MeshConfig
from lmsi_jax.core.rng import path_keys
from lmsi_jax.decoding import engine
from lmsi_jax.decoding.scheduler import Decoder, Decoding, Request
from lmsi_jax.sharding import make_mesh, use_mesh

LONGEST, LOG_MEDIAN = 256, 3.741  # with a standard deviation of 1 in the logarithm, the mean is 64
QUESTIONS, WITHOUT = 256, 64  # without refill a quarter of them shows the speed as well
REFILLED, FIXED = (16, 8), (4, 32)  # lanes x slots of 128 rows


def length(question: Int[Array, " n"], path: Int[Array, " n"]) -> Int[Array, " n"]:
    """Tokens of each path."""
    keys = path_keys(jax.random.key(7), question, path)
    drawn = jnp.exp(LOG_MEDIAN + jax.vmap(jax.random.normal)(keys))
    return jnp.clip(jnp.round(drawn), 1, LONGEST).astype(jnp.int32)


@contextlib.contextmanager
def scripted_ends(end: int) -> Iterator[None]:
    """Inside, a path draws the token `end` where its length is reached, and nowhere else."""
    draw = engine._draw

    def scripted(settings, task, state, logits):
        token, logprob = draw(settings, task, state, logits.at[:, end].set(-jnp.inf))
        ids = state.of_slot(state.id).reshape(-1)
        reached = length(ids, (state.path % settings.paths).reshape(-1)).reshape(state.path.shape)
        return jnp.where(state.position + 1 >= reached, end, token), logprob

    with mock.patch.object(engine, "_draw", scripted):
        yield


def paths_per_second(workload: Workload, refill: bool) -> tuple[float, float]:
    """(paths a second, utilisation) over all the questions, compilation not counted."""
    config, mesh = workload.model, make_mesh(MeshConfig())
    lanes, slots = REFILLED if refill else FIXED
    few_shot, requests = prompts(workload, QUESTIONS, seed=0)
    batches: Sequence[Sequence[Request]] = [requests]
    if not refill:
        batches = [requests[i : i + lanes] for i in range(0, WITHOUT, lanes)]
    tokens = Ids(config.vocab)
    tokens.ends = (config.vocab - 1,)
    with use_mesh(mesh), scripted_ends(config.vocab - 1):
        params = model.init(config, jax.random.key(0))
        decoding = Decoding(PATHS, 0.7, LONGEST, lanes=lanes, slots=slots)
        decoder = Decoder(mesh, config, params, tokens, decoding, few_shot, workload.question, jax.random.key(1))
        list(decoder.run(batches[0][:1]))
        decoder.live_slot_steps = decoder.slot_steps = 0
        start = time.perf_counter()
        count = sum(len(paths) for batch in batches for paths in decoder.run(batch))
        return count / (time.perf_counter() - start), decoder.utilisation
