"""Decodes to a file in shards, each complete or absent. A run that was killed resumes with those that are missing."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence

from etils import epath

from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core import clock, counters, rng
from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.profile import Trace
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import Record, fingerprint, read_jsonl, write_jsonl
from lmsi_jax.decoding import memory
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.decoding.engine import Limits
from lmsi_jax.decoding.scheduler import Engine, Enough, Request, SampledPath
from lmsi_jax.formatting.prompts import Prompts, check_control_tokens
from lmsi_jax.model.flops import decoding_flops
from lmsi_jax.pipeline.runtime import Model, Runtime
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.tokenizers import Tokenizer

HEARTBEAT = 30.0  # minimum seconds between two lines of metrics
VISIBLE = 120.0  # seconds to wait for a file that another host wrote


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """What the paths of a decoding stage depend on, besides the model and the questions."""

    seed: int
    stream: tuple[str | int, ...]  # names that are folded into the seed, so that stages draw independently
    prompts: Prompts
    numerics: Numerics
    sampling: Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Prompts to continue, and the `paths.jsonl` to write. The shards in `scratch` survive a kill."""

    decoding: Decoding
    batching: Batching
    prefix: str
    requests: Sequence[Request]
    checkpoint: epath.Path
    output: epath.Path
    scratch: epath.Path
    part: str = ""  # the part of the stage, for titles and metrics
    enough: Enough | None = None
    largest: tuple[Sampling, Batching] | None = None  # the run's sampling, whose memory this job may use; None = its own

    def prompt_hash(self, request: Request) -> str:
        """Return a hash of the complete prompt, which the record of each of its paths contains."""
        return fingerprint(self.prefix + request.text + request.begun)


def requests(questions: epath.Path, prompts: Prompts, tokenizer: Tokenizer, *, reasoning: bool = True) -> list[Request]:
    """Return a request per question, with the end of its prompt. Raises UserError when a question contains a control token."""
    rows = load_questions(questions)
    check_control_tokens(rows, tokenizer)
    return [Request(r["id"], prompts.question(r["question"], r["choices"], reasoning=reasoning)) for r in rows]


def decode_to_file(runtime: Runtime, job: Job) -> None:
    """Write one `paths.jsonl` record per path of each request, in the order of the requests.

    The text of a path is a function of the seed and stream, the question's id and the path's number.
    """
    size, requests = job.batching.questions_per_shard, job.requests
    shards = [requests[i : i + size] for i in range(0, len(requests), size)]
    files = [job.scratch / f"{job.output.stem}-{i:05d}-of-{len(shards):05d}.jsonl" for i in range(len(shards))]
    todo = processes.by_first(lambda: [i for i, file in enumerate(files) if not file.exists()])
    if todo:
        with use_mesh(runtime.mesh):
            _decode_shards(runtime, job, [(shards[i], files[i]) for i in todo], min(size, len(requests)))
    processes.wait_for_all("shards")
    processes.by_first(lambda: _join(files, job.output))


def _join(files: Sequence[epath.Path], output: epath.Path) -> None:
    """Join all shards in one file. A network file system may take a minute to show what another host wrote."""
    deadline = time.monotonic() + VISIBLE
    while not all(file.exists() for file in files) and time.monotonic() < deadline:
        time.sleep(1.0)
    write_jsonl(output, (row for file in files for row in read_jsonl(file)))


def _decode_shards(runtime: Runtime, job: Job, shards: Sequence[tuple[Sequence[Request], epath.Path]], size: int) -> None:
    """Load the model, prefill its prefix, and decode each shard to its file. Lanes that are done with one begin the next."""
    decoding = job.decoding
    model = runtime.load(
        job.checkpoint,
        decoding.numerics,
        control=decoding.prompts.chat is not None,
        gathered=job.batching.gather,
        weights=decoding.sampling.weights,
    )
    lengths = {request.id: len(model.tokenizer.encode(request.text + request.begun)) for request in job.requests}
    limits, planned = _fitted(runtime, job, model, size, max(lengths.values()))
    title = f"{runtime.stage} {job.part}".strip()
    console.print(f"{title}: {limits.lanes} lanes of {limits.slots} slots, {planned}")
    key = rng.stage_key(decoding.seed, *decoding.stream)
    prefix_file = job.scratch / f"{job.output.stem}-prefix.safetensors" if processes.count() == 1 else None
    with memory.explain_out_of_memory(planned, limits):
        engine = Engine(runtime.mesh, model.config, model.tokenizer, limits)
        prefix = engine.prefill(model.params, job.prefix, prefix_file)
        shared = len(model.tokenizer.start(job.prefix))
        counters.add(operations=decoding_flops(model.config, 0, shared, ()))
        with contextlib.ExitStack() as stack:
            everything = [request for requests, _ in shards for request in requests]
            log = _DecodingLog(stack, runtime, job, title, len(everything))
            collected = _Shards(job, shards)
            for paths in engine.sample(model.params, prefix, everything, decoding.sampling, key, job.enough, group=size):
                is_complete = collected.add(paths)
                log.add(paths, engine, write=not is_complete)
                tokens = [path.num_tokens for path in paths]
                operations = decoding_flops(model.config, shared, lengths[paths[0].id], tokens)
                counters.add(tokens=float(sum(tokens)), operations=operations)
                if is_complete:
                    log.end_shard(engine)
            log.end(engine)


class _Shards:
    """Collects the records of paths, and writes the file of a shard when all of its requests are there."""

    def __init__(self, job: Job, shards: Sequence[tuple[Sequence[Request], epath.Path]]):
        self._job, self._shards = job, shards
        self._place = {request.id: (number, request) for number, (requests, _) in enumerate(shards) for request in requests}
        self._rows: list[dict[str, list[Record]]] = [{} for _ in shards]
        assert len(self._place) == sum(len(requests) for requests, _ in shards), "two requests have one id"

    def add(self, paths: Sequence[SampledPath]) -> bool:
        """Add the paths of a request, and return whether its shard is complete."""
        number, request = self._place[paths[0].id]
        (requests, file), rows = self._shards[number], self._rows[number]
        keep, prompt_hash = self._job.decoding.sampling.keep, self._job.prompt_hash(request)
        rows[request.id] = [{**path.record(keep), "prompt_hash": prompt_hash} for path in paths]
        if len(rows) < len(requests):
            return False
        if processes.writes(number):
            write_jsonl(file, (row for request in requests for row in rows[request.id]))
        self._rows[number] = {}
        return True


def _fitted(runtime: Runtime, job: Job, model: Model, questions: int, longest: int) -> tuple[Limits, memory.Memory]:
    """Return the shapes to decode with, and their memory. Lanes are limited to what fits, the same on all hosts."""
    mesh, config = runtime.mesh, model.config
    sampling, batching = job.largest or (job.decoding.sampling, job.batching)
    prefix, weights = len(model.tokenizer.start(job.prefix)), memory.bytes_on_device(model.params)
    limits = memory.limits(job.decoding.sampling, job.batching, longest, job.batching.lanes or questions)
    largest = memory.limits(sampling, batching, longest)
    if limits != largest:
        free = processes.global_min(memory.free_bytes(mesh))
        most = memory.budget(mesh, config, largest, batching, prefix, weights, free)
        lanes = memory.fitting_lanes(mesh, config, limits, prefix, most, weights)
        limits = dataclasses.replace(limits, lanes=lanes)
    return limits, memory.estimate(mesh, config, limits, prefix, weights)


class _DecodingLog:
    """Progress and metrics of decoding. `stack` closes the files that it opens."""

    def __init__(self, stack: contextlib.ExitStack, runtime: Runtime, job: Job, title: str, left: int):
        self._job, self._title = job, title
        self._done = self._before = len(job.requests) - left
        file = runtime.metrics_file(job.part)
        self._writer = stack.enter_context(contextlib.closing(MetricWriter(file, resume_step=self._done)))
        self._trace = stack.enter_context(contextlib.closing(Trace(job.batching.profile, file.parent, self._done)))
        self._bar = stack.enter_context(ProgressBar(title, len(job.requests), self._done))
        self._trace.step()
        self._spent, self._start, self._beat = clock.spent(), clock.now(), clock.now()
        self._paths = self._tokens = 0

    def _speeds(self) -> dict[str, float]:
        seconds = clock.now() - self._start
        return {"tokens_per_second": self._tokens / seconds, "paths_per_second": self._paths / seconds}

    def _drawn(self) -> float:
        """Return the share of the paths that were drawn, out of those that could be drawn."""
        return self._paths / ((self._done - self._before) * self._job.decoding.sampling.paths)

    def add(self, paths: Sequence[SampledPath], engine: Engine, *, write: bool) -> None:
        """Count the paths of one question; `write` allows a line of metrics."""
        self._paths += len(paths)
        self._tokens += sum(path.num_tokens for path in paths)
        self._done += 1
        speeds = self._speeds()
        note = f"{speeds['paths_per_second']:.0f} paths/s {speeds['tokens_per_second']:.0f} tok/s"
        self._bar.update(self._done, f"{note} slots {engine.utilisation:.0%} busy")
        self._trace.step()
        if write and clock.now() - self._beat > HEARTBEAT:
            self._beat = clock.now()
            self._writer.write(self._done, **speeds)

    def end_shard(self, engine: Engine) -> None:
        """Write a line of metrics."""
        times = {f"{name}_seconds": passed for name, passed in clock.since(self._spent, clock.now() - self._start).items()}
        share = {} if self._job.enough is None else {"drawn": self._drawn()}
        self._writer.write(self._done, **self._speeds(), utilisation=engine.utilisation, **share, **times)

    def end(self, engine: Engine) -> None:
        """Print what was decoded."""
        saved = "" if self._job.enough is None else f" ({self._drawn():.0%} of those that could be drawn)"
        speed, busy = self._speeds()["tokens_per_second"], f"slots {engine.utilisation:.0%} busy"
        console.print(f"{self._title}: {self._paths} paths{saved}, {self._tokens} tokens, {speed:.0f} tok/s, {busy}")
