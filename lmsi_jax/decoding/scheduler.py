"""The host's side of decoding: which question is in which lane, and what came out."""

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Key

from lmsi_jax import model
from lmsi_jax.core import clock
from lmsi_jax.core.config import ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.decoding import engine
from lmsi_jax.decoding.prefill import Cache, Prompt, load_prompt, prefill_prompt, prefill_questions, save_prompt, widths
from lmsi_jax.decoding.stop import cut, stop_table
from lmsi_jax.sharding import Mesh, processes, sharding
from lmsi_jax.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to be answered: its id and the prompt's text after the few-shot part, or the token ids of it."""

    id: str
    text: str = ""
    tokens: tuple[int, ...] | None = None  # in place of the text


@dataclasses.dataclass(frozen=True)
class Path:
    """One sampled continuation. `logprob` is the sum over its tokens, in nats."""

    id: str
    path: int
    text: str
    num_tokens: int
    logprob: float
    finish: str  # "stop" or "length"
    tokens: tuple[int, ...]  # as drawn, with those of the stop string or the end of sequence

    def record(self) -> dict:
        """What `paths.jsonl` keeps."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "tokens"}


Enough = Callable[[Sequence[Path]], int]  # of a question's first finished paths: how many will do; 0 = go on


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How to decode: everything but the model."""

    paths: int
    temperature: float
    max_tokens: int
    lanes: int
    slots: int
    sync_every: int = 16
    top_k: int = 0
    top_p: float = 1.0
    stops: tuple[str, ...] = ()
    enough: Enough | None = None  # ends a question early; None = all paths


@dataclasses.dataclass(frozen=True)
class _Asked:
    request: Request
    tokens: list[int]


@dataclasses.dataclass(frozen=True)
class _Ready:
    """A question whose keys and values are in row `row` of `cache`, counted within its part of the batch axis."""

    asked: _Asked | None  # None: there are no more questions
    cache: Cache
    row: int


class _Queue:
    """Questions as they come, each for one part of the batch axis; `prefill` readies a batch of one width at a time."""

    def __init__(
        self,
        batches: Iterable[tuple[int, list[_Asked]]],
        parts: int,
        prefill: Callable[[int, list[_Asked]], list[_Ready]],
    ):
        self._left, self._prefill = collections.deque(batches), prefill
        self._ready: list[collections.deque[_Ready]] = [collections.deque() for _ in range(parts)]

    def take(self, part: int) -> _Ready:
        """The next question for a part of the batch axis."""
        while not self._ready[part] and self._left:
            for i, ready in enumerate(self._prefill(*self._left.popleft())):
                self._ready[i % len(self._ready)].append(ready)
                self._last = ready.cache
        return self._ready[part].popleft() if self._ready[part] else _Ready(None, self._last, 0)


Place = tuple[int, int]  # a lane, and which of its questions


class Decoder:
    """A model, a few-shot prompt and a manner of decoding; `run` answers questions.

    `longest_question` (tokens) fixes the shapes: with the same value a path's text is the same in any batch. The few-shot
    prompt is a text or its token ids; its keys and values are read from the file `kept`, or written there, which must
    belong to this model and prompt.
    """

    def __init__(
        self,
        mesh: Mesh,
        config: ModelConfig,
        params: model.Params | model.Quantized,
        tokenizer: Tokenizer,
        decoding: Decoding,
        few_shot: str | Sequence[int],
        longest_question: int,
        key: Key[Array, ""],
        kept: os.PathLike | str | None = None,
    ):
        self._mesh, self._config, self._params, self._tokenizer = mesh, config, params, tokenizer
        self.decoding = decoding
        prompt = tokenizer.start(few_shot) if isinstance(few_shot, str) else list(few_shot)
        self._slots = -(-max(longest_question - 1, 1) // 32) * 32
        self._check(len(prompt), longest_question)
        pieces = tokenizer.token_bytes
        table, matched = stop_table(decoding.stops, pieces + [b""] * (config.vocab - len(pieces)))
        self._bytes = pieces
        self._settings = engine.Settings(
            paths=decoding.paths,
            max_tokens=decoding.max_tokens,
            lanes=decoding.lanes,
            slots=min(decoding.slots, decoding.paths),
            sync_every=decoding.sync_every,
            top_k=decoding.top_k,
            top_p=decoding.top_p,
            ends=tokenizer.ends,
            matched=matched,
        )
        self._out: engine.Output | None = None  # of the latest decode call
        self.live_slot_steps = self.slot_steps = 0
        shared = self._prompt(prompt, kept)
        place = functools.partial(jax.device_put, device=sharding(mesh))
        self._task = engine.Task(shared, place(table), place(key), place(np.float32(decoding.temperature)))

    def _prompt(self, tokens: list[int], kept: os.PathLike | str | None) -> Prompt:
        if kept is not None and epath.Path(kept).exists():
            return load_prompt(kept, self._mesh)
        prompt = prefill_prompt(self._mesh, self._config, self._params, tokens)
        with clock.spend("prefill"):
            jax.block_until_ready(prompt)
        if kept is not None:
            save_prompt(kept, prompt)
        return prompt

    def _check(self, prompt: int, question: int) -> None:
        parts, lanes = self._mesh.size("batch"), self.decoding.lanes
        if lanes % parts:
            raise UserError(
                f"sample.lanes={lanes} does not divide over data x fsdp = {parts} devices; set --config.sample.lanes to "
                f"a multiple of {parts}."
            )
        total = prompt + question + self.decoding.max_tokens
        if total > self._config.context:
            raise UserError(
                f"The longest prompt does not fit: {prompt} tokens of few-shot prompt + {question} of the question + "
                f"{self.decoding.max_tokens} to generate = {total}, and the model's context is {self._config.context}. Use "
                f"fewer exemplars (--config.data.shots), a smaller --config.sample.max_tokens, or shorter questions."
            )

    @property
    def utilisation(self) -> float:
        """Share of slot-steps so far that worked on a path."""
        return self.live_slot_steps / max(self.slot_steps, 1)

    def run(self, requests: Sequence[Request]) -> Iterator[list[Path]]:
        """The paths of each question, question by question as they finish.

        `Decoding.enough` depends on the paths alone, so what is kept does not depend on when it is asked. The host reads
        what came out of one call while the device works on the next.
        """
        if not requests:
            return
        lanes = self._settings.lanes
        queue = _Queue(self._batches(requests), self._mesh.size("batch"), self._prefill)
        held: dict[Place, tuple[str, int]] = {}  # a question's id, and the calls made when it was put there
        state = engine.start(self._config, self._settings, self._slots)
        state = self._load(state, held, [(lane, i) for i in range(engine.HELD) for lane in range(lanes)], queue, 0)
        calls = 0
        before: engine.Output | None = None
        while held:
            state, self._out = engine.decode(self._config, self._settings, self._params, self._task, state)
            seen = {at: id for at, (id, since) in held.items() if since < calls}
            finished = self._finished(before, seen) if before else {}
            calls, before = calls + 1, self._out
            state = self._load(state, held, list(finished), queue, calls)
            yield from finished.values()
            processes.stop_together()
        self.live_slot_steps += int(state.busy)
        self.slot_steps += int(state.steps) * state.path.size

    def _finished(self, out: engine.Output, held: dict[Place, str]) -> dict[Place, list[Path]]:
        """The questions that need no more paths, and their paths."""
        with clock.spend("decode"):
            finish = processes.to_host(out.finish)
        paths, enough = self._settings.paths, self.decoding.enough
        drawn: dict[Place, list[Path]] = {}
        complete: set[Place] = set()
        whole: list[np.ndarray] = []
        for (lane, i), id in held.items():
            own = slice(i * paths, (i + 1) * paths)
            ended = finish[lane, own] != engine.RUNNING
            if ended.all() or (enough and ended[0]):
                whole = whole or processes.to_host(jax.tree.leaves(out))
                drawn[lane, i] = self._collect(id, *(array[lane, own] for array in whole))
                complete |= {(lane, i)} if ended.all() else set()
        if enough is None:
            return drawn
        # One process decides for all: they must load the same questions, and reading an answer may take a limited time.
        wanted = processes.by_first(lambda: [enough(found) for found in drawn.values()]) if drawn else []
        counted = zip(drawn.items(), wanted, strict=True)
        return {at: found[: count or None] for (at, found), count in counted if count or at in complete}

    def _load(
        self, state: engine.State, held: dict[Place, tuple[str, int]], places: Sequence[Place], queue: _Queue, calls: int
    ) -> engine.State:
        """Put the next questions into these places, and nothing where there are no more."""
        lanes, parts = self._settings.lanes, self._mesh.size("batch")
        loads: dict[tuple[int, int], tuple[Cache, np.ndarray]] = {}
        for lane, i in places:
            ready = queue.take(lane * parts // lanes)
            nothing = np.tile(np.array([[-1], [0], [0], [0], [0], [0]], np.int32), lanes)
            _, fields = loads.setdefault((i, id(ready.cache)), (ready.cache, nothing))
            held.pop((lane, i), None)
            values = (i, ready.row, 0, 0, 0, 0)
            if ready.asked:
                request, tokens = ready.asked.request, ready.asked.tokens
                held[lane, i] = (request.id, calls)
                values = (i, ready.row, len(tokens) - 1, tokens[-1], stable_hash(request.id), self._settings.paths)
            fields[:, lane] = values
        for cache, fields in loads.values():
            state = engine.load(state, cache, engine.Loading(*jax.device_put(list(fields), sharding(self._mesh))), parts)
        return state

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[_Asked]]]:
        """As many questions at a time as there are lanes, shorter ones first, and the slots that they are prefilled in.

        These depend on a question's own length and not on its neighbours', and so do its keys and values, to the last bit.
        """
        lanes = self._settings.lanes
        choices = widths(self._slots) if len(requests) > lanes else [self._slots]  # in one batch they go together

        def width(asked: _Asked) -> int:  # its last token is left to the first step of decoding
            return next(width for width in choices if width >= len(asked.tokens) - 1)

        def ids(request: Request) -> list[int]:
            return self._tokenizer.encode(request.text) if request.tokens is None else list(request.tokens)

        asked = sorted((_Asked(request, ids(request)) for request in requests), key=width)
        for slots, alike in itertools.groupby(asked, key=width):
            while batch := list(itertools.islice(alike, lanes)):
                yield slots, batch

    def _prefill(self, slots: int, batch: list[_Asked]) -> list[_Ready]:
        """The caches of a batch of questions."""
        lanes, parts = self._settings.lanes, self._mesh.size("batch")
        tokens, length = np.zeros((lanes, slots), np.int32), np.zeros(lanes, np.int32)
        for i, asked in enumerate(batch):  # in turn to each part of the batch axis
            row = (i % parts) * (lanes // parts) + i // parts
            length[row] = len(asked.tokens) - 1
            tokens[row, : length[row]] = asked.tokens[:-1]
        placed = jax.device_put(tokens, sharding(self._mesh, "batch", None))
        lengths = jax.device_put(length, sharding(self._mesh, "batch"))
        with clock.spend("decode"):
            jax.block_until_ready(self._out)
        cache = prefill_questions(self._config, self._slots, self._params, self._task.prompt, placed, lengths)
        with clock.spend("prefill"):
            jax.block_until_ready(cache)
        return [_Ready(asked, cache, i // parts) for i, asked in enumerate(batch)]

    def _collect(self, id: str, tokens: np.ndarray, count: np.ndarray, logprob: np.ndarray, finish: np.ndarray) -> list[Path]:
        """The paths that are finished, up to the first that is not."""
        paths = []
        for p in range(self._settings.paths):
            if finish[p] == engine.RUNNING:
                break
            drawn = tuple(int(token) for token in tokens[p, : count[p]])
            written = b"".join(self._bytes[t] if t < len(self._bytes) else b"" for t in drawn)
            text = cut(written.decode("utf-8", "replace"), self.decoding.stops)
            kind = "stop" if finish[p] == engine.STOPPED else "length"
            if not np.isfinite(logprob[p]):
                raise UserError(
                    f"The model gives logits that are not finite: path {p} of question '{id}' has the log-probability "
                    f"{logprob[p]} after {len(drawn)} tokens. What is finished is kept. Check the checkpoint for NaN; "
                    f"a float16 or bfloat16 model may overflow: compute in float32 (--config.model.dtype=float32)."
                )
            paths.append(Path(id, p, text, len(drawn), round(float(logprob[p]), 4), kind, drawn))
        return paths
