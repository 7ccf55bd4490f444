"""The host side of the engine: it schedules questions into lanes and collects the sampled paths."""

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Key

from lmsi_jax.core import clock
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.core.settings import part
from lmsi_jax.decoding import engine, score
from lmsi_jax.decoding.config import Sampling, Truncation
from lmsi_jax.decoding.engine import Context, Limits, LogitsFunction, Program, model_logits
from lmsi_jax.decoding.prefill import Cache, Prefix, load_prefix, padded_lengths, prefill_prefix, prefill_questions, save_prefix
from lmsi_jax.decoding.stop import StopTables, cut
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.transformer import AnyParams
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import sharding
from lmsi_jax.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to continue: an id, and the text after the prefix or its token ids. `begun` is the beginning of the answer.

    Token ids are used exactly as given, for instance to continue from a part of a sampled path; texts are then ignored.
    `sampling` overrides the settings of the call, but must have the same truncation.
    """

    id: str
    text: str = ""
    begun: str = ""
    tokens: tuple[int, ...] | None = None
    sampling: Sampling | None = None


@dataclasses.dataclass(frozen=True)
class SampledPath:
    """One sampled continuation. `logprob` is the sum over its tokens, in nats."""

    id: str
    path: int
    text: str
    num_tokens: int
    logprob: float
    finish: str  # "stop" or "length"
    tokens: tuple[int, ...]  # as sampled, including those of the stop string or the end of sequence
    logprobs: tuple[float, ...] | None = None  # of each token, if `Limits.logprobs` is set

    def record(self, keep: Sequence[str] = ()) -> dict[str, Any]:
        """Return the record for `paths.jsonl`, with those of `tokens` and `logprobs` that `keep` names."""
        left_out = {"tokens", "logprobs"} - set(keep)
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}


Enough = Callable[[Sequence[SampledPath]], int]  # a question's first finished paths -> how many to keep; 0 = continue sampling


@dataclasses.dataclass(frozen=True)
class _Question:
    """A request with its token ids and its sampling settings."""

    request: Request
    tokens: np.ndarray
    sampling: Sampling


@dataclasses.dataclass(frozen=True)
class _Prefilled:
    """A question whose keys and values are in row `row` of `cache`, counted within its shard of the batch axis."""

    question: _Question | None  # None: there are no more questions
    cache: Cache
    row: int


class _Queue:
    """Questions that are waiting for a lane, given with their padded widths, in order.

    `prefill` computes the cache of the questions that it is given for each shard of the batch axis. At most `most` questions of
    a shard wait, so that those of a shard whose paths are long do not pile up.
    """

    def __init__(
        self,
        questions: Iterable[tuple[int, _Question]],
        shards: int,
        most: int,
        prefill: Callable[[int, Sequence[Sequence[_Question]]], Cache],
    ):
        self._left, self._most, self._prefill = collections.deque(questions), most, prefill
        self._ready: list[collections.deque[_Prefilled]] = [collections.deque() for _ in range(shards)]

    def take(self, shard: int) -> _Prefilled:
        """Return the next question for a shard, prefilling further ones for all shards if it has none."""
        if not self._ready[shard] and self._left:
            self._fill(shard)
        return self._ready[shard].popleft() if self._ready[shard] else _Prefilled(None, self._last, 0)

    def _fill(self, first: int) -> None:
        """Prefill the next questions of one width: each goes to the shard with the fewest, the first one to `first`."""
        width, dealt = self._left[0][0], [list[_Question]() for _ in self._ready]
        room = [self._most - len(ready) for ready in self._ready]
        shard = first
        while self._left and self._left[0][0] == width and room[shard]:
            dealt[shard].append(self._left.popleft()[1])
            room[shard] -= 1
            shard = room.index(max(room))
        self._last = self._prefill(width, dealt)
        for ready, questions in zip(self._ready, dealt, strict=True):
            ready.extend(_Prefilled(question, self._last, row) for row, question in enumerate(questions))


Place = tuple[int, int]  # a lane, and the index of one of its questions


@dataclasses.dataclass
class _Call:
    """One call of `Engine.sample`: its context on the device, and the question in each place."""

    params: AnyParams
    context: Context
    program: Program
    starts: dict[tuple[str, ...], int]  # the start state in the stop table of each set of stop strings
    loaded: dict[Place, tuple[_Question, int]] = dataclasses.field(default_factory=dict)  # and the decode calls before its load
    latest: engine.Decoded | None = None  # of the latest decode call


class Engine:
    """Samples from and scores with models of one architecture. Each call takes the parameters as an argument.

    With the same limits a path's text is the same in any batch. Parameters of the same shapes reuse the compiled programs.
    `logits` computes the logits of a decode step; the default is the transformer. Raises UserError when the lanes do not
    divide over the batch axis.
    """

    def __init__(
        self,
        mesh: Mesh,
        config: ModelConfig,
        tokenizer: Tokenizer,
        limits: Limits,
        *,
        logits: LogitsFunction = model_logits,
    ):
        question = -(-max(limits.question - 1, 1) // 32) * 32  # the first decode step reads the last token
        self.limits = dataclasses.replace(limits, question=question, slots=min(limits.slots, limits.paths))
        self._mesh, self._config, self._tokenizer, self._logits = mesh, config, tokenizer, logits
        self._bytes = tokenizer.token_bytes
        self._shards = mesh.size("batch")
        self._longest = limits.question
        self.live_slot_steps = self.slot_steps = 0
        if limits.lanes % self._shards:
            raise UserError(
                f"sample.lanes={limits.lanes} does not divide over data x fsdp = {self._shards} devices; set "
                f"--config.sample.lanes to a multiple of {self._shards}."
            )

    @functools.cached_property
    def _stops(self) -> StopTables:
        return StopTables(self._bytes, self._config.vocab)

    @property
    def utilisation(self) -> float:
        """Fraction of the slot-steps so far that worked on a path."""
        return self.live_slot_steps / max(self.slot_steps, 1)

    def prefill(self, params: AnyParams, prefix: str | Sequence[int], file: os.PathLike | str | None = None) -> Prefix:
        """Prefill the prefix that all prompts share, given as a text or as token ids.

        `file` caches the keys and values: they are loaded if it exists and written otherwise. The caller ensures that the file
        belongs to these parameters and this prefix. Raises UserError when the prefix, the longest question and the longest
        path together exceed the model's context.
        """
        tokens = self._tokenizer.start(prefix) if isinstance(prefix, str) else list(prefix)
        self._check_length(len(tokens))
        if file is not None and epath.Path(file).exists():
            return load_prefix(file, self._mesh)
        computed = prefill_prefix(self._mesh, self._config, params, tokens)
        with clock.spend("prefill"):
            jax.block_until_ready(computed)
        if file is not None:
            save_prefix(file, computed)
        return computed

    def _check_length(self, prefix: int) -> None:
        total = prefix + self._longest + self.limits.max_tokens
        if total > self._config.context:
            raise UserError(
                f"The longest prompt does not fit: {prefix} tokens of few-shot prompt + {self._longest} of the question + "
                f"{self.limits.max_tokens} to generate = {total}, and the model's context is {self._config.context}. Use "
                f"fewer exemplars (--config.data.shots), a smaller --config.sample.max_tokens, or shorter questions."
            )

    def score(self, params: AnyParams, rows: Sequence[Sequence[int]], batch: int = 8) -> Iterator[score.Scores]:
        """Return the scores (see score.Scores) of each row of token ids, in order; `batch` rows are computed at a time."""
        return score.score(self._mesh, self._config, params, rows, batch)

    def sample(
        self,
        params: AnyParams,
        prefix: Prefix,
        requests: Sequence[Request],
        sampling: Sampling,
        key: Key[Array, ""],
        enough: Enough | None = None,
        group: int = 0,
    ) -> Iterator[list[SampledPath]]:
        """Sample the paths of each request and yield the list of a request's paths as soon as the request finishes.

        Shorter requests start first. With a `group`, this holds within each group of so many consecutive requests, and the
        groups start in their order: lanes that have no more requests of one begin the next.

        A path depends only on `key`, the request's id, the path's number, its sampling settings and the tokens before it.
        `enough` can stop a request early: it returns how many of the first finished paths to keep, or 0 to continue. It must
        depend only on these paths, so that the result does not depend on when it is called. The host reads the output of one
        decode call while the device runs the next. Raises UserError when a request exceeds the limits or has another
        truncation than `sampling`, or when the logits are not finite.
        """
        if not requests:
            return
        questions = [self._question(request, request.sampling or sampling) for request in requests]
        call = self._begin(params, prefix, questions, sampling, key)
        lanes = self.limits.lanes
        groups = [questions[i : i + group] for i in range(0, len(questions), group)] if group else [questions]
        by_length = itertools.chain.from_iterable(map(self._by_length, groups))
        queue = _Queue(by_length, self._shards, lanes // self._shards, functools.partial(self._prefill, call))
        state = engine.start(self._config, self.limits)
        state = self._load(call, state, [(lane, i) for i in range(engine.PER_LANE) for lane in range(lanes)], queue, 0)
        calls = 0
        while call.loaded:
            before = call.latest
            state, call.latest = engine.decode(call.program, call.params, call.context, state)
            seen = {at: question for at, (question, since) in call.loaded.items() if since < calls}
            finished = self._finished(before, seen, enough) if before else {}
            calls += 1
            state = self._load(call, state, list(finished), queue, calls)
            yield from finished.values()
            processes.stop_together()
        if call.latest:
            self._count(processes.to_host(call.latest.slot_steps))

    def _count(self, slot_steps: np.ndarray) -> None:
        """Add the slot-steps of a decode call: those that worked on a path, and all."""
        self.live_slot_steps += int(slot_steps[0])
        self.slot_steps += int(slot_steps[1])

    def _question(self, request: Request, sampling: Sampling) -> _Question:
        tokens = self._tokenizer.encode(request.text + request.begun) if request.tokens is None else list(request.tokens)
        limits = self.limits
        for name, value, most in (
            ("tokens of the prompt", len(tokens), self._longest),
            ("paths", sampling.paths, limits.paths),
            ("tokens of a path", sampling.max_tokens, limits.max_tokens),
        ):
            if value > most:
                raise UserError(f"Request '{request.id}' has {value} {name}, and the engine's limit is {most}.")
        return _Question(request, np.asarray(tokens, np.int32), sampling)

    def _begin(
        self,
        params: AnyParams,
        prefix: Prefix,
        questions: Sequence[_Question],
        sampling: Sampling,
        key: Key[Array, ""],
    ) -> _Call:
        truncation = part(sampling, Truncation)
        other = next((q for q in questions if part(q.sampling, Truncation) != truncation), None)
        if other:
            raise UserError(f"Request '{other.request.id}' must have the same truncation as the call ({truncation}).")
        stop_sets = list(dict.fromkeys(question.sampling.stops for question in questions))
        table, starts = self._stops.table(stop_sets)
        place = functools.partial(jax.device_put, device=sharding(self._mesh))
        program = Program(self._config, self.limits, truncation, tuple(self._tokenizer.ends), self._logits)
        context = Context(prefix, place(table), place(key))
        return _Call(params, context, program, dict(zip(stop_sets, starts, strict=True)))

    def _finished(
        self, decoded: engine.Decoded, questions: dict[Place, _Question], enough: Enough | None
    ) -> dict[Place, list[SampledPath]]:
        """Return the paths of the questions that are complete, or that `enough` stops."""
        out = decoded.out
        with clock.spend("decode"):
            finish, slot_steps = processes.to_host((out.finish, decoded.slot_steps))
        self._count(slot_steps)
        sampled: dict[Place, list[SampledPath]] = {}
        complete: set[Place] = set()
        host: dict[str, np.ndarray] = {}
        for (lane, i), question in questions.items():
            first = i * self.limits.paths
            own = slice(first, first + question.sampling.paths)
            ended = finish[lane, own] != engine.RUNNING
            if ended.all() or (enough and ended[0]):
                host = host or processes.to_host({name: array for name, array in vars(out).items() if array is not None})
                sampled[lane, i] = self._collect(question, {name: array[lane, own] for name, array in host.items()})
                complete |= {(lane, i)} if ended.all() else set()
        if enough is None:
            return sampled
        # The first process decides for all, as they must load the same questions. `enough` compares answers under a time limit,
        # so that processes could decide differently.
        counts = processes.by_first(lambda: [enough(paths) for paths in sampled.values()]) if sampled else []
        counted = zip(sampled.items(), counts, strict=True)
        return {at: paths[: count or None] for (at, paths), count in counted if count or at in complete}

    def _load(self, call: _Call, state: engine.State, places: Sequence[Place], queue: _Queue, calls: int) -> engine.State:
        """Load the next questions into these places; a place stays empty when no questions are left."""
        lanes = self.limits.lanes
        loads: dict[tuple[int, int], tuple[Cache, list[np.ndarray]]] = {}
        for lane, i in places:
            ready = queue.take(lane * self._shards // lanes)
            unchanged = [np.full(lanes, -1, np.int32), *np.zeros((7, lanes), np.int32), np.ones(lanes, np.float32)]
            _, fields = loads.setdefault((i, id(ready.cache)), (ready.cache, unchanged))
            call.loaded.pop((lane, i), None)
            values: tuple[float, ...] = (i, ready.row, 0, 0, 0, 0, 0, 0, 1.0)
            if ready.question:
                call.loaded[lane, i] = (ready.question, calls)
                values = (i, ready.row, *self._facts(call, ready.question))
            for field, value in zip(fields, values, strict=True):
                field[lane] = value
        for cache, fields in loads.values():
            place, row, *facts = jax.device_put(fields, sharding(self._mesh))
            state = engine.load(state, cache, engine.Loading(place, row, engine.Questions(*facts)), self._shards)
        return state

    def _facts(self, call: _Call, question: _Question) -> tuple[int | float, ...]:
        """Return the fields of `engine.Questions` for one question."""
        tokens, sampling, id_hash = question.tokens, question.sampling, stable_hash(question.request.id)
        start = call.starts[sampling.stops]
        return len(tokens) - 1, int(tokens[-1]), id_hash, sampling.paths, sampling.max_tokens, start, sampling.temperature

    def _by_length(self, questions: Sequence[_Question]) -> Iterator[tuple[int, _Question]]:
        """Yield (width, question), shorter questions first; a question is padded to `width` tokens in prefill.

        The width of a question does not depend on those that are prefilled with it. Neither do its keys and values, bit for
        bit.
        """
        choices = padded_lengths(self.limits.question) if len(questions) > self.limits.lanes else [self.limits.question]

        def width(question: _Question) -> int:  # the first decode step reads the last token
            return next(width for width in choices if width >= len(question.tokens) - 1)

        return ((width(question), question) for question in sorted(questions, key=width))

    def _prefill(self, call: _Call, width: int, dealt: Sequence[Sequence[_Question]]) -> Cache:
        """Prefill questions, given for each shard of the batch axis and padded to `width` tokens; their rows are in order."""
        lanes = self.limits.lanes
        tokens, length = np.zeros((lanes, width), np.int32), np.zeros(lanes, np.int32)
        for shard, questions in enumerate(dealt):
            for row, question in enumerate(questions, start=shard * lanes // self._shards):
                length[row] = len(question.tokens) - 1
                tokens[row, : length[row]] = question.tokens[:-1]
        placed = jax.device_put(tokens, sharding(self._mesh, "batch", None))
        lengths = jax.device_put(length, sharding(self._mesh, "batch"))
        with clock.spend("decode"):
            jax.block_until_ready(call.latest)
        cache = prefill_questions(self._config, self.limits.question, call.params, call.context.prefix, placed, lengths)
        with clock.spend("prefill"):
            jax.block_until_ready(cache)
        return cache

    def _collect(self, question: _Question, out: dict[str, np.ndarray]) -> list[SampledPath]:
        """Return a question's paths up to the first unfinished one; `out` has the question's rows of engine.Output's fields."""
        paths, id = [], question.request.id
        for p in range(question.sampling.paths):
            if out["finish"][p] == engine.RUNNING:
                break
            count, logprob = int(out["count"][p]), float(out["logprob"][p])
            tokens = tuple(int(token) for token in out["tokens"][p, :count])
            written = b"".join(self._bytes[t] if t < len(self._bytes) else b"" for t in tokens)
            text = cut(written.decode("utf-8", "replace"), question.sampling.stops)
            finish = "stop" if out["finish"][p] == engine.STOPPED else "length"
            if not np.isfinite(logprob):
                raise UserError(
                    f"The model computes logits that are not finite: path {p} of question '{id}' has the log-probability "
                    f"{logprob} after {count} tokens. Finished shards are kept. Check the checkpoint for NaN; "
                    f"a float16 or bfloat16 model may overflow: compute in float32 (--config.model.dtype=float32)."
                )
            each = tuple(round(float(value), 6) for value in out["logprobs"][p, :count]) if "logprobs" in out else None
            paths.append(SampledPath(id, p, text, count, round(logprob, 4), finish, tokens, each))
        return paths
