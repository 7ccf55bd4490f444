"""Samples from a server with a limited number of concurrent requests. Each reply is stored as it arrives."""

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
from lmsi_jax.decoding.config import EndpointConfig
from lmsi_jax.decoding.endpoint import Choice, Endpoint
from lmsi_jax.decoding.scheduler import Request, SampledPath
from lmsi_jax.decoding.stop import cut
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.stages.decode import Job
from lmsi_jax.tokenizers import Tokenizer


def sample_to_file(runtime: Runtime, job: Job, config: EndpointConfig, tokenizer: Tokenizer) -> None:
    """Sample from a server, and write one `paths.jsonl` record per path of each request, in the order of the requests.

    Each reply is stored in `job.scratch` when it arrives, so that a later call requests only the missing paths. The number
    of tokens of a path is the server's if it reports one per path, and otherwise that of `tokenizer`.
    """
    sampler = _Sampler(job, config, tokenizer)
    writer = MetricWriter(runtime.metrics_file())
    start, stop = time.perf_counter(), threading.Event()
    counts: Counter[str] = Counter()  # of this call, without what an earlier call stored
    with ProgressBar(runtime.stage, len(job.requests)) as bar, futures.ThreadPoolExecutor(config.concurrency) as pool:
        work = [pool.submit(sampler.complete, request, stop) for request in job.requests]
        try:
            for done, finished in enumerate(futures.as_completed(work), start=1):
                counts += finished.result()
                seconds = time.perf_counter() - start
                bar.update(done, f"{counts['paths'] / seconds:.1f} paths/s {counts['completion_tokens'] / seconds:.0f} tok/s")
        except BaseException:
            stop.set()  # requests in flight are waited for and stored
            pool.shutdown(cancel_futures=True)
            raise
    stored = [sampler.stored(request) for request in job.requests]
    total = write_jsonl(job.output, (row for question in stored for row in question["rows"]))
    usage: Counter[str] = sum((Counter(question["usage"]) for question in stored), Counter())
    cost = (usage["prompt_tokens"] * config.prompt_price + usage["completion_tokens"] * config.completion_price) / 1e6
    seconds = time.perf_counter() - start
    writer.write(
        len(job.requests),
        paths_per_second=counts["paths"] / seconds,
        tokens_per_second=counts["completion_tokens"] / seconds,
        **{name: float(usage[name]) for name in ("prompt_tokens", "completion_tokens", "requests")},
        dollars=cost,
    )
    writer.close()
    console.print(
        f"{runtime.stage}: {total} paths in {usage['requests']} requests, {usage['prompt_tokens']} prompt and "
        f"{usage['completion_tokens']} completion tokens" + (f", {cost:.2f} dollars" if cost else "")
    )


class _Sampler:
    """Samples the paths of one question per call. Any number of threads may call it at once."""

    def __init__(self, job: Job, config: EndpointConfig, tokenizer: Tokenizer):
        self._job, self._config, self._tokenizer = job, config, tokenizer
        self._sampling = job.decoding.sampling
        self._seed = "/".join(map(str, (job.decoding.seed, *job.decoding.stream)))
        self._endpoint = Endpoint(config, self._sampling)

    def stored(self, request: Request) -> Record:
        """Return the paths that are stored already, and their usage. Raises UserError when their file is invalid."""
        file = self._file(request)
        if not file.exists():
            return {"rows": [], "usage": {}}
        try:
            saved = json.loads(file.read_bytes().decode())
            if not (isinstance(saved, dict) and isinstance(saved.get("rows"), list) and isinstance(saved.get("usage"), dict)):
                raise ValueError("not an object with rows and usage")
        except ValueError as error:
            raise UserError(
                f"{file} should contain the replies for question '{request.id}', but is invalid ({error}). Delete it and start "
                f"again: the question is then sampled again."
            ) from error
        return saved

    def complete(self, request: Request, stop: threading.Event) -> Counter[str]:
        """Sample until the question has all or enough of its paths; return the usage. An error stops all other threads too."""
        try:
            return self._complete(request, stop)
        except BaseException:
            stop.set()
            raise

    def _complete(self, request: Request, stop: threading.Event) -> Counter[str]:
        saved, usage = self.stored(request), Counter[str]()
        while not stop.is_set() and not (wanted := self._enough(saved["rows"])):
            first = len(saved["rows"])
            missing = self._sampling.paths - first
            most = min(missing, self._config.paths_per_request or missing)
            seed = stable_hash(f"{self._seed}/{request.id}/{first}")
            reply = self._endpoint.ask(self._job.prefix + request.text, request.begun, most, seed, stop)
            if reply is None:
                break
            saved["rows"] += [self._row(request, number, choice) for number, choice in enumerate(reply.choices, start=first)]
            used = Counter(requests=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
            saved["usage"] = dict(Counter(saved["usage"]) + used)
            usage += used + Counter(paths=len(reply.choices))
            write_text(self._file(request), dumps(saved))
        if not stop.is_set() and len(saved["rows"]) > wanted:
            write_text(self._file(request), dumps({**saved, "rows": saved["rows"][:wanted]}))
        return usage

    def _row(self, request: Request, number: int, choice: Choice) -> Record:
        tokens, text = choice.num_tokens, cut(choice.text, self._sampling.stops)
        return {
            "id": request.id,
            "path": number,
            "text": text,
            "num_tokens": len(self._tokenizer.encode(choice.text)) if tokens is None else tokens,
            **({} if choice.logprob is None else {"logprob": choice.logprob}),
            "finish": choice.finish if text == choice.text else "stop",  # a server may continue after a stop string
            "prompt_hash": self._job.prompt_hash(request),
        }

    def _enough(self, rows: Sequence[Record]) -> int:
        """Return how many of these paths are enough; 0 to continue sampling."""
        if len(rows) >= self._sampling.paths:
            return self._sampling.paths
        if self._job.enough is None or not rows:
            return 0
        paths = [SampledPath(r["id"], r["path"], r["text"], r["num_tokens"], 0.0, r["finish"], ()) for r in rows]
        return self._job.enough(paths)

    def _file(self, request: Request) -> epath.Path:
        return self._job.scratch / f"{fingerprint(request.id)}.json"
