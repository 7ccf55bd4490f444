"""The host's side of decoding: which question is in which lane, and what came out."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from lmsi_jax import model
from lmsi_jax.core.config import ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.decoding import engine
from lmsi_jax.decoding.stop import cut, stop_table
from lmsi_jax.sharding import Mesh, sharding
from lmsi_jax.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to be answered: its id and the prompt's text after the few-shot part."""

    id: str
    text: str


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


class Decoder:
    """A model, a few-shot prompt and a manner of decoding; `run` answers questions.

    `longest_question` (tokens) fixes the shapes: with the same value a path's text is the same in any batch.
    """

    def __init__(
        self,
        mesh: Mesh,
        config: ModelConfig,
        params: model.Params,
        tokenizer: Tokenizer,
        decoding: Decoding,
        few_shot: str,
        longest_question: int,
        key: Key[Array, ""],
    ):
        self._mesh, self._config, self._params, self._tokenizer = mesh, config, params, tokenizer
        self.decoding = decoding
        prompt = tokenizer.start(few_shot)
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
        rows = np.tile(np.asarray(prompt, np.int32), (mesh.size("batch"), 1))
        cache = engine.prefill_task(config, params, jax.device_put(rows, sharding(mesh, "batch", None)))
        self._task = engine.Task(cache, jnp.int32(len(prompt)), jnp.asarray(table), key, jnp.float32(decoding.temperature))
        self.live_slot_steps = self.slot_steps = 0

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

        `Decoding.enough` depends on the paths alone, so what is kept does not depend on when it is asked.
        """
        enough = self.decoding.enough
        ids = [self._tokenizer.encode(request.text) for request in requests]
        caches = self._prefill(ids)
        lanes, waiting = self._settings.lanes, list(range(len(requests)))[::-1]
        held: list[int | None] = [None] * lanes
        state = engine.start(self._config, self._settings, self._slots)
        while waiting or any(q is not None for q in held):
            for lane in range(lanes):
                if held[lane] is None and waiting:
                    held[lane] = q = waiting.pop()
                    last, hash, paths = ids[q][-1], stable_hash(requests[q].id), self._settings.paths
                    state = engine.load_lane(state, caches[q // lanes], q % lanes, lane, len(ids[q]) - 1, last, hash, paths)
            state = engine.decode(self._config, self._settings, self._params, self._task, state)
            finished = ~np.asarray(jnp.any(state.live, axis=1))
            out = None
            for lane, question in enumerate(held):
                if question is None or not (finished[lane] or enough):
                    continue
                out = out or jax.device_get((state.out_tokens, state.out_count, state.out_logprob, state.out_finish))
                found = self._collect(requests[question].id, *(array[lane] for array in out))
                wanted = enough(found) if enough else 0
                if not finished[lane] and not wanted:
                    continue
                yield found[: wanted or None]
                held[lane] = None
                if not finished[lane] and not waiting:
                    state = engine.load_lane(state, caches[0], 0, lane, 0, 0, 0, 0)  # nothing more to do
        self.live_slot_steps += int(state.busy)
        self.slot_steps += int(state.steps) * lanes * self._settings.slots

    def _prefill(self, ids: list[list[int]]) -> list[engine.Cache]:
        """The questions' caches, in batches of as many as there are lanes."""
        caches, lanes = [], self._settings.lanes
        for first in range(0, len(ids), lanes):
            tokens = np.zeros((lanes, self._slots), np.int32)
            length = np.zeros(lanes, np.int32)
            for row, question in enumerate(ids[first : first + lanes]):
                length[row] = len(question) - 1
                tokens[row, : length[row]] = question[:-1]
            placed = jax.device_put(tokens, sharding(self._mesh, "batch", None))
            lengths = jax.device_put(length, sharding(self._mesh, "batch"))
            caches.append(engine.prefill_questions(self._config, self._params, self._task, placed, lengths))
        return caches

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
            paths.append(Path(id, p, text, len(drawn), round(float(logprob[p]), 4), kind, drawn))
        return paths
