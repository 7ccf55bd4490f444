"""Sampling as most tests of decoding want it: one call of an engine of its own."""

from lmsi_jax.decoding.config import Sampling
from lmsi_jax.decoding.engine import Limits, model_logits
from lmsi_jax.decoding.scheduler import Engine


def sampled(
    mesh, config, params, tokenizer, requests, prefix, longest, key, *, paths, temperature=1.0, max_tokens, lanes, slots,
    sync_every=16, stops=(), enough=None, file=None, logits=model_logits, logprobs=False,
):  # fmt: skip
    """(the engine, the paths of each question as they finish)."""
    limits = Limits(lanes, slots, paths, max_tokens, longest, sync_every, logprobs)
    engine = Engine(mesh, config, tokenizer, limits, logits=logits)
    sampling = Sampling(paths=paths, temperature=temperature, max_tokens=max_tokens, stops=stops)
    return engine, engine.sample(params, engine.prefill(params, prefix, file), requests, sampling, key, enough)
