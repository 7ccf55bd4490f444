"""Sampling from a server: as many requests at a time as it is allowed, each answer kept as it comes."""

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent import futures

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import write_text
from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import Record, dumps, fingerprint, write_jsonl
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.decoding.endpoint import Choice, Endpoint
from lmsi_jax.decoding.scheduler import Path, Request
from lmsi_jax.decoding.stop import cut
from lmsi_jax.pipeline.decode import Job
from lmsi_jax.pipeline.session import Session


def sample_to_file(session: Session, job: Job) -> None:
    """Write one `paths.jsonl` record for each path of each request, in the order of requests, from the config's endpoint.

    Each answer is kept under `job.scratch` when it comes: a later call asks for the paths that are missing and no others.
    A path's number of tokens is the server's where it says it for each path, else that of this model's tokenizer.
    """
    sampler, config = _Sampler(session, job), session.config.sample.endpoint
    writer = MetricWriter(job.metrics, job.title.replace(" ", "-"))
    start, stop = time.perf_counter(), threading.Event()
    now: Counter[str] = Counter()  # what was kept from an earlier call is not in it
    with ProgressBar(job.title, len(job.requests)) as bar, futures.ThreadPoolExecutor(config.concurrency) as pool:
        work = [pool.submit(sampler.complete, request, stop) for request in job.requests]
        try:
            for done, finished in enumerate(futures.as_completed(work), start=1):
                now += finished.result()
                seconds = time.perf_counter() - start
                bar.update(done, f"{now['paths'] / seconds:.1f} paths/s {now['completion_tokens'] / seconds:.0f} tok/s")
        except BaseException:
            stop.set()  # what is under way is waited for and kept
            pool.shutdown(cancel_futures=True)
            raise
    stored = [sampler.stored(request) for request in job.requests]
    total = write_jsonl(job.output, (row for question in stored for row in question["rows"]))
    usage: Counter[str] = sum((Counter(question["usage"]) for question in stored), Counter())
    cost = (usage["prompt_tokens"] * config.prompt_price + usage["completion_tokens"] * config.completion_price) / 1e6
    seconds = time.perf_counter() - start
    writer.write(
        len(job.requests),
        paths_per_second=now["paths"] / seconds,
        tokens_per_second=now["completion_tokens"] / seconds,
        **{name: float(usage[name]) for name in ("prompt_tokens", "completion_tokens", "requests")},
        dollars=cost,
    )
    writer.close()
    console.print(
        f"{job.title}: {total} paths in {usage['requests']} requests, {usage['prompt_tokens']} prompt and "
        f"{usage['completion_tokens']} completion tokens" + (f", {cost:.2f} dollars" if cost else "")
    )


class _Sampler:
    """Asks for the paths of one question at a time, in any number of threads."""

    def __init__(self, session: Session, job: Job):
        self._config, self._tokenizer = session.config.sample.endpoint, session.tokenizer
        self._job, self._decoding = job, job.decoding
        self._seed = "/".join(map(str, (session.config.seed, *job.key_names)))
        self._endpoint = Endpoint(self._config, job.decoding)

    def stored(self, request: Request) -> Record:
        """The paths that are there already, and what they took. Raises UserError when their file cannot be read."""
        file = self._file(request)
        if not file.exists():
            return {"rows": [], "usage": {}}
        try:
            kept = json.loads(file.read_bytes().decode())
            if not (isinstance(kept, dict) and isinstance(kept.get("rows"), list) and isinstance(kept.get("usage"), dict)):
                raise ValueError("not an object with rows and usage")
        except ValueError as error:
            raise UserError(
                f"{file} should hold the server's answers to question '{request.id}', and cannot be read ({error}). Delete it "
                f"and start again: the question is asked anew."
            ) from error
        return kept

    def complete(self, request: Request, stop: threading.Event) -> Counter[str]:
        """Ask until the question has its paths, or enough of them; returns what this took. An error stops all others too."""
        try:
            return self._complete(request, stop)
        except BaseException:
            stop.set()
            raise

    def _complete(self, request: Request, stop: threading.Event) -> Counter[str]:
        kept, spent = self.stored(request), Counter[str]()
        while not stop.is_set() and not (wanted := self._enough(kept["rows"])):
            first = len(kept["rows"])
            missing = self._decoding.paths - first
            most = min(missing, self._config.paths_per_request or missing)
            seed = stable_hash(f"{self._seed}/{request.id}/{first}")
            reply = self._endpoint.ask(self._job.few_shot + request.text, most, seed, stop)
            if reply is None:
                break
            kept["rows"] += [self._row(request, number, choice) for number, choice in enumerate(reply.choices, start=first)]
            used = Counter(requests=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
            kept["usage"] = dict(Counter(kept["usage"]) + used)
            spent += used + Counter(paths=len(reply.choices))
            write_text(self._file(request), dumps(kept))
        if not stop.is_set() and len(kept["rows"]) > wanted:
            write_text(self._file(request), dumps({**kept, "rows": kept["rows"][:wanted]}))
        return spent

    def _row(self, request: Request, number: int, choice: Choice) -> Record:
        tokens, text = choice.num_tokens, cut(choice.text, self._decoding.stops)
        return {
            "id": request.id,
            "path": number,
            "text": text,
            "num_tokens": len(self._tokenizer.encode(choice.text)) if tokens is None else tokens,
            **({} if choice.logprob is None else {"logprob": choice.logprob}),
            "finish": choice.finish if text == choice.text else "stop",  # a server may go on behind a stop string
            "prompt_hash": self._job.prompt_hash(request),
        }

    def _enough(self, rows: Sequence[Record]) -> int:
        """How many of these paths are all that is wanted; 0 to go on."""
        if len(rows) >= self._decoding.paths:
            return self._decoding.paths
        if self._decoding.enough is None or not rows:
            return 0
        return self._decoding.enough([Path(r["id"], r["path"], r["text"], r["num_tokens"], 0.0, r["finish"], ()) for r in rows])

    def _file(self, request: Request) -> epath.Path:
        return self._job.scratch / f"{fingerprint(request.id)}.json"
