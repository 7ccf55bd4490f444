"""Sampling from a server: as many requests at a time as it is allowed, each answer kept as it comes."""

import concurrent.futures
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence

from etils import epath

from lmsi_jax.core.config import EndpointConfig
from lmsi_jax.core.metrics import MetricWriter
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import Record, dumps, fingerprint, write_jsonl, write_text
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.decoding.endpoint import Endpoint
from lmsi_jax.decoding.scheduler import Decoding, Path, Request
from lmsi_jax.decoding.stop import cut
from lmsi_jax.pipeline.session import Session


def sample_to_file(
    session: Session,
    few_shot: str,
    requests: Sequence[Request],
    decoding: Decoding,
    key_names: Sequence[str | int],
    scratch: epath.Path,
    output: epath.Path,
    title: str,
    metrics: epath.Path,
) -> None:
    """Write one `paths.jsonl` record for each path of each request, in the order of requests, from the config's endpoint.

    Each answer is kept under `scratch` when it comes: a later call asks for the paths that are missing and no others.
    A path's number of tokens is the server's where it says it for each path, else that of this model's tokenizer.
    """
    sampler = _Sampler(session, few_shot, decoding, key_names, scratch)
    writer = MetricWriter(metrics, title.replace(" ", "-"))
    start, stop = time.perf_counter(), threading.Event()
    with ProgressBar(title, len(requests)) as bar, _pool(session.config.sample.endpoint) as pool:
        work = [pool.submit(sampler.complete, request, stop) for request in requests]
        try:
            for done, _ in enumerate(concurrent.futures.as_completed(work), start=1):
                seconds, used = time.perf_counter() - start, sampler.used
                _.result()
                bar.update(done, f"{used['paths'] / seconds:.1f} paths/s {used['completion_tokens'] / seconds:.0f} tok/s")
        except BaseException:
            stop.set()  # what is under way is waited for and kept
            pool.shutdown(cancel_futures=True)
            raise
    rows = [row for request in requests for row in sampler.stored(request)["rows"]]
    write_jsonl(output, rows)
    totals: Counter[str] = sum((Counter(sampler.stored(request)["usage"]) for request in requests), Counter())
    cost = _dollars(session.config.sample.endpoint, totals)
    seconds = time.perf_counter() - start
    writer.write(
        len(requests),
        paths_per_second=sampler.used["paths"] / seconds,
        tokens_per_second=sampler.used["completion_tokens"] / seconds,
        prompt_tokens=float(totals["prompt_tokens"]),
        completion_tokens=float(totals["completion_tokens"]),
        requests=float(totals["requests"]),
        dollars=cost,
    )
    writer.close()
    console.print(
        f"{title}: {len(rows)} paths in {totals['requests']} requests, {totals['prompt_tokens']} prompt and "
        f"{totals['completion_tokens']} completion tokens" + (f", {cost:.2f} dollars" if cost else "")
    )


def _pool(config: EndpointConfig) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(config.concurrency)


def _dollars(config: EndpointConfig, totals: Counter[str]) -> float:
    return (totals["prompt_tokens"] * config.prompt_price + totals["completion_tokens"] * config.completion_price) / 1e6


class _Sampler:
    """Asks for the paths of one question at a time, in any number of threads."""

    def __init__(
        self, session: Session, few_shot: str, decoding: Decoding, key_names: Sequence[str | int], scratch: epath.Path
    ):
        self._config, self._tokenizer = session.config.sample.endpoint, session.tokenizer
        self._few_shot, self._decoding, self._scratch = few_shot, decoding, scratch
        self._seed = "/".join(map(str, (session.config.seed, *key_names)))
        self._endpoint = Endpoint(self._config, decoding)
        self.used: Counter[str] = Counter()  # by this process: what was kept from an earlier one is not in it

    def stored(self, request: Request) -> Record:
        """The paths that are there already, and what they took."""
        file = self._file(request)
        return json.loads(file.read_text()) if file.exists() else {"rows": [], "usage": {}}

    def complete(self, request: Request, stop: threading.Event) -> None:
        """Ask until the question has its paths, or enough of them."""
        kept = self.stored(request)
        while not stop.is_set() and not (wanted := self._enough(kept["rows"])):
            first = len(kept["rows"])
            missing = self._decoding.paths - first
            most = min(missing, self._config.paths_per_request or missing)
            seed = stable_hash(f"{self._seed}/{request.id}/{first}")
            reply = self._endpoint.ask(self._few_shot + request.text, most, seed)
            for number, choice in enumerate(reply.choices, start=first):
                tokens = choice.num_tokens
                row = {
                    "id": request.id,
                    "path": number,
                    "text": cut(choice.text, self._decoding.stops),
                    "num_tokens": len(self._tokenizer.encode(choice.text)) if tokens is None else tokens,
                    "logprob": choice.logprob,
                    "finish": choice.finish,
                    "prompt_hash": fingerprint(self._few_shot + request.text),
                }
                kept["rows"].append({key: value for key, value in row.items() if value is not None})
            spent = Counter(requests=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
            kept["usage"] = dict(Counter(kept["usage"]) + spent)
            self.used.update(spent + Counter(paths=len(reply.choices)))
            write_text(self._file(request), dumps(kept))
        if not stop.is_set() and len(kept["rows"]) > wanted:
            write_text(self._file(request), dumps({**kept, "rows": kept["rows"][:wanted]}))

    def _enough(self, rows: Sequence[Record]) -> int:
        """How many of these paths are all that is wanted; 0 to go on."""
        if len(rows) >= self._decoding.paths:
            return self._decoding.paths
        if self._decoding.enough is None or not rows:
            return 0
        return self._decoding.enough([Path(r["id"], r["path"], r["text"], r["num_tokens"], 0.0, r["finish"], ()) for r in rows])

    def _file(self, request: Request) -> epath.Path:
        return self._scratch / f"{fingerprint(request.id)}.json"
