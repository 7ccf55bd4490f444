"""Decoding to a file, in shards that are whole or absent: a killed run goes on with the next shard."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from lmsi_jax.core import clock, rng
from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.profile import Trace
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import Record, fingerprint, read_jsonl, write_jsonl
from lmsi_jax.decoding import memory
from lmsi_jax.decoding.scheduler import Decoder, Decoding, Enough, Path, Request
from lmsi_jax.pipeline.session import Session
from lmsi_jax.sharding import processes, use_mesh
from lmsi_jax.tasks.reading import read_answers
from lmsi_jax.tasks.registry import load_questions
from lmsi_jax.voting.adaptive import beta_decided, forecast_decided, paths_needed, window_decided

HEARTBEAT = 30.0  # seconds between two lines of metrics, at least
VISIBLE = 120.0  # seconds until a file that another host wrote is taken for lost


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
    """One path a question at temperature 0, with at most as many rows in flight as in sampling: lanes of one slot each."""
    s = session.config.sample
    return Decoding(
        paths=1,
        temperature=0.0,
        max_tokens=max_tokens,
        lanes=memory.greedy_lanes(s, session.mesh.size("batch")),
        slots=1,
        sync_every=s.sync_every,
        stops=s.stops,
    )


def adaptive(session: Session, questions: epath.Path) -> Enough | None:
    """When a question's vote is decided, as the config's `sample.adaptive` says; None = the paper's m paths.

    The answers are read as the vote reads them, with the options of each question.
    """
    sample, task = session.config.sample, session.task
    config = sample.adaptive
    if config.rule == "none":
        return None
    choices = {row["id"]: row["choices"] for row in load_questions(questions)}
    decided = {
        "forecast": lambda read: forecast_decided(read, sample.paths, config.threshold),
        "beta": lambda read: beta_decided(read, config.threshold),
        "window": lambda read: window_decided(read, config.window),
    }[config.rule]

    def enough(paths: Sequence[Path]) -> int:
        rows = [{"text": path.text, "finish": path.finish} for path in paths]
        read = read_answers(rows, task, choices[paths[0].id]).answers
        return paths_needed(read, decided, config.floor) or 0

    return enough


@dataclasses.dataclass(frozen=True)
class Job:
    """Questions to draw paths of, and where the paths go: as one `paths.jsonl`, by way of parts that outlive a kill."""

    few_shot: str
    requests: Sequence[Request]
    decoding: Decoding
    key_names: Sequence[str | int]  # with the run's seed, what the draws depend on beside question and path
    scratch: epath.Path
    output: epath.Path
    title: str
    metrics: epath.Path
    profile: tuple[int, int] = (0, 0)  # as in the config's `sample` section

    def prompt_hash(self, request: Request) -> str:
        """Of the whole prompt, as each of its paths records it."""
        return fingerprint(self.few_shot + request.text)


def decode_to_file(session: Session, checkpoint: str, job: Job) -> None:
    """Write one `paths.jsonl` record for each path of each request, in the order of requests.

    The text of a path is a function of the run's seed, `job.key_names`, the question's id and the path's number.
    """
    sample, requests = session.config.sample, job.requests
    size = sample.questions_per_shard * max(1, sample.paths // job.decoding.paths)  # greedy ones are as much work a shard
    shards = [requests[i : i + size] for i in range(0, len(requests), size)]
    files = [job.scratch / f"{job.output.stem}-{i:05d}-of-{len(shards):05d}.jsonl" for i in range(len(shards))]
    todo = processes.by_first(lambda: [i for i, file in enumerate(files) if not file.exists()])
    if todo:
        with use_mesh(session.mesh):
            mesh, config, tokenizer = session.mesh, session.model_config, session.tokenizer
            longest = max(len(tokenizer.encode(request.text)) for request in requests)
            params = session.decoding_params(checkpoint)
            decoding, shape, planned = _fitted(session, job, params, longest, min(size, len(requests)))
            console.print(f"{job.title}: {shape.lanes} lanes of {shape.slots} slots, {planned}")
            key = rng.stage_key(session.config.seed, *job.key_names)
            kept = job.scratch / f"{job.output.stem}-prompt.safetensors" if processes.count() == 1 else None
            with memory.explained(planned, shape):
                decoder = Decoder(mesh, config, params, tokenizer, decoding, job.few_shot, longest, key, kept)
                _decode_shards(decoder, job, [(shards[i], files[i]) for i in todo])
    processes.wait_for_all("shards")
    processes.by_first(lambda: _join(files, job.output))


def _join(files: Sequence[epath.Path], output: epath.Path) -> None:
    """All shards in one file. What another host wrote may take a network's file system a minute to show."""
    deadline = time.monotonic() + VISIBLE
    while not all(file.exists() for file in files) and time.monotonic() < deadline:
        time.sleep(1.0)
    write_jsonl(output, (row for file in files for row in read_jsonl(file)))


def _fitted(
    session: Session, job: Job, params: Any, longest: int, questions: int
) -> tuple[Decoding, memory.Shape, memory.Memory]:
    """The lanes to decode with, and what they take: as many as the job asks for and the memory allows, alike on all hosts."""
    sample, mesh, config, decoding = session.config.sample, session.mesh, session.model_config, job.decoding
    prompt, weights = len(session.tokenizer.start(job.few_shot)), memory.held(params)
    shape = memory.Shape(decoding.lanes or questions, decoding.slots, decoding.paths, decoding.max_tokens, prompt, longest)
    if shape != memory.sampling_shape(sample, sample.lanes, prompt, longest):
        free = processes.least(memory.free(mesh))
        most = memory.budget(mesh, config, sample, prompt, longest, weights, free)
        shape = dataclasses.replace(shape, lanes=memory.fitting_lanes(mesh, config, shape, most, weights))
    planned = memory.needed(mesh, config, shape, weights)
    return dataclasses.replace(decoding, lanes=shape.lanes), shape, planned


def _decode_shards(decoder: Decoder, job: Job, shards: Sequence[tuple[Sequence[Request], epath.Path]]) -> None:
    """Each shard to its file, with progress and metrics."""
    done = before = len(job.requests) - sum(len(requests) for requests, _ in shards)
    writer = MetricWriter(job.metrics, job.title.replace(" ", "-"), resume_step=done)
    trace = Trace(job.profile, job.metrics, done)
    trace.step()
    spent, start, beat = clock.spent(), time.perf_counter(), time.monotonic()
    paths = tokens = 0
    with contextlib.closing(writer), contextlib.closing(trace), ProgressBar(job.title, len(job.requests), done) as bar:
        for number, (requests, file) in enumerate(shards):
            asked = {request.id: request for request in requests}
            rows: dict[str, list[Record]] = {}
            for found in decoder.run(requests):
                paths, tokens, done = paths + len(found), tokens + sum(p.num_tokens for p in found), done + 1
                seconds = time.perf_counter() - start
                speeds = {"tokens_per_second": tokens / seconds, "paths_per_second": paths / seconds}
                note = f"{paths / seconds:.0f} paths/s {tokens / seconds:.0f} tok/s"
                bar.update(done, f"{note} slots {decoder.utilisation:.0%} busy" if decoder.utilisation else note)
                id = found[0].id
                trace.step()
                rows[id] = [{**path.record(), "prompt_hash": job.prompt_hash(asked[id])} for path in found]
                if time.monotonic() - beat > HEARTBEAT and len(rows) < len(requests):
                    beat = time.monotonic()
                    writer.write(done, **speeds)
            if processes.writes(number):
                write_jsonl(file, (row for request in requests for row in rows[request.id]))
            times = clock.since(spent, time.perf_counter() - start)
            kinds = {f"{kind}_seconds": passed for kind, passed in times.items()}
            share = {} if decoder.decoding.enough is None else {"drawn": paths / ((done - before) * decoder.decoding.paths)}
            writer.write(done, **speeds, utilisation=decoder.utilisation, **share, **kinds)
    saved = f" ({share['drawn']:.0%} of those that could be drawn)" if share else ""
    busy = f"slots {decoder.utilisation:.0%} busy"
    console.print(f"{job.title}: {paths} paths{saved}, {tokens} tokens, {tokens / seconds:.0f} tok/s, {busy}")
