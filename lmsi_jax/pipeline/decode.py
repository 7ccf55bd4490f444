"""Decoding to a file, in shards that are whole or absent: a killed run goes on with the next shard."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from lmsi_jax.core import clock, rng
from lmsi_jax.core.metrics import MetricWriter
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import Record, fingerprint, read_jsonl, write_jsonl
from lmsi_jax.decoding import memory
from lmsi_jax.decoding.scheduler import Decoder, Decoding, Enough, Path, Request
from lmsi_jax.pipeline.session import Session
from lmsi_jax.pipeline.vote import extract_all, said_by
from lmsi_jax.sharding import processes, use_mesh
from lmsi_jax.voting.adaptive import beta_decided, forecast_decided, paths_needed, window_decided

HEARTBEAT = 30.0  # seconds between two lines of metrics, at least


def sampling(session: Session, temperature: float) -> Decoding:
    """Many paths a question, as the config's `sample` section says."""
    s = session.config.sample
    return Decoding(
        paths=s.paths,
        temperature=temperature,
        max_tokens=s.max_tokens,
        lanes=s.lanes,
        slots=min(s.slots, s.paths),
        sync_every=s.sync_every,
        top_k=s.top_k,
        top_p=s.top_p,
        stops=s.stops,
    )


def greedy(session: Session, max_tokens: int) -> Decoding:
    """One path a question at temperature 0, with as many rows in flight as in sampling: all lanes, of one slot each."""
    s, parts = session.config.sample, session.mesh.size("batch")
    rows = s.lanes * min(s.slots, s.paths)
    return Decoding(
        paths=1,
        temperature=0.0,
        max_tokens=max_tokens,
        lanes=max(1, rows // parts) * parts if rows else 0,
        slots=1,
        sync_every=s.sync_every,
        stops=s.stops,
    )


def adaptive(session: Session) -> Enough | None:
    """When a question's vote is decided, as the config's `sample.adaptive` says; None = the paper's m paths."""
    sample, task = session.config.sample, session.task
    config = sample.adaptive
    if config.rule == "none":
        return None
    decided = {
        "forecast": lambda said: forecast_decided(said, sample.paths, config.threshold),
        "beta": lambda said: beta_decided(said, config.threshold),
        "window": lambda said: window_decided(said, config.window),
    }[config.rule]

    def enough(paths: Sequence[Path]) -> int:
        found = extract_all([{"text": path.text, "finish": path.finish} for path in paths], task)
        return paths_needed(said_by(found, task), decided, config.floor) or 0

    return enough


def decode_to_file(
    session: Session,
    checkpoint: str,
    few_shot: str,
    requests: Sequence[Request],
    decoding: Decoding,
    key_names: Sequence[str | int],
    scratch: epath.Path,
    output: epath.Path,
    title: str,
    metrics: epath.Path,
) -> None:
    """Write one `paths.jsonl` record for each path of each request, in the order of requests.

    The text of a path is a function of the run's seed, `key_names`, the question's id and the path's number.
    """
    sample = session.config.sample
    size = sample.questions_per_shard * max(1, sample.paths // decoding.paths)  # greedy ones are as much work a shard
    shards = [requests[i : i + size] for i in range(0, len(requests), size)]
    files = [scratch / f"{output.stem}-{i:05d}-of-{len(shards):05d}.jsonl" for i in range(len(shards))]
    todo = processes.by_first(lambda: [i for i, file in enumerate(files) if not file.exists()])
    done = sum(len(shards[i]) for i in range(len(shards)) if i not in todo)
    if todo:
        with use_mesh(session.mesh), ProgressBar(title, len(requests), done) as bar:
            mesh, config, tokenizer = session.mesh, session.model_config, session.tokenizer
            longest = max(len(tokenizer.encode(request.text)) for request in requests)
            params = session.decoding_params(checkpoint)
            decoding, shape, planned = _fitted(session, decoding, params, few_shot, longest, min(size, len(requests)))
            console.print(f"{title}: {shape.lanes} lanes of {shape.slots} slots, {planned}")
            key = rng.stage_key(session.config.seed, *key_names)
            with memory.explained(planned, shape):
                kept = scratch / f"{output.stem}-prompt.safetensors" if processes.count() == 1 else None
                decoder = Decoder(mesh, config, params, tokenizer, decoding, few_shot, longest, key, kept)
                _decode_shards(decoder, few_shot, shards, files, todo, done, bar, title, metrics)
    processes.by_first(lambda: write_jsonl(output, (row for file in files for row in read_jsonl(file))))


def _fitted(
    session: Session, decoding: Decoding, params: Any, few_shot: str, longest: int, questions: int
) -> tuple[Decoding, memory.Shape, memory.Memory]:
    """How many lanes to decode with where the config leaves that open, and what they take."""
    sample, mesh, config = session.config.sample, session.mesh, session.model_config
    prompt, weights = len(session.tokenizer.start(few_shot)), memory.held(params)
    lanes = decoding.lanes or questions
    shape = memory.Shape(lanes, decoding.slots, decoding.paths, decoding.max_tokens, prompt, longest)
    if not decoding.lanes:
        budget = int(sample.memory * memory.GIB) or int(0.9 * memory.free(mesh)) + weights
        shape = dataclasses.replace(shape, lanes=memory.fitting_lanes(mesh, config, shape, budget, weights))
    planned = memory.needed(mesh, config, shape, weights)
    return dataclasses.replace(decoding, lanes=shape.lanes), shape, planned


def _decode_shards(
    decoder: Decoder,
    few_shot: str,
    shards: list,
    files: list[epath.Path],
    todo: list[int],
    done: int,
    bar: ProgressBar,
    title: str,
    metrics: epath.Path,
) -> None:
    writer = MetricWriter(metrics, title.replace(" ", "-"), resume_step=done)
    before, start, beat = clock.spent(), time.perf_counter(), time.monotonic()
    paths = tokens = 0
    for i in todo:
        texts = {request.id: request.text for request in shards[i]}
        rows: dict[str, list[Record]] = {}
        for found in decoder.run(shards[i]):
            paths, tokens, done = paths + len(found), tokens + sum(p.num_tokens for p in found), done + 1
            seconds = time.perf_counter() - start
            note = f"{paths / seconds:.0f} paths/s {tokens / seconds:.0f} tok/s"
            bar.update(done, f"{note} slots {decoder.utilisation:.0%} busy" if decoder.utilisation else note)
            hash = fingerprint(few_shot + texts[found[0].id])
            rows[found[0].id] = [{**path.record(), "prompt_hash": hash} for path in found]
            if time.monotonic() - beat > HEARTBEAT and len(rows) < len(shards[i]):
                beat = time.monotonic()
                writer.write(done, tokens_per_second=tokens / seconds, paths_per_second=paths / seconds)
        if processes.is_first():
            write_jsonl(files[i], (row for request in shards[i] for row in rows[request.id]))
        writer.write(
            done,
            tokens_per_second=tokens / seconds,
            paths_per_second=paths / seconds,
            utilisation=decoder.utilisation,
            **{f"{kind}_seconds": spent for kind, spent in clock.since(before, time.perf_counter() - start).items()},
        )
    writer.close()
    drawn = paths / max(sum(len(shards[i]) for i in todo) * decoder.decoding.paths, 1)
    saved = "" if decoder.decoding.enough is None else f" ({drawn:.0%} of those that could be drawn)"
    console.print(
        f"{title}: {paths} paths{saved}, {tokens} tokens, {tokens / seconds:.0f} tok/s, slots {decoder.utilisation:.0%} busy"
    )
