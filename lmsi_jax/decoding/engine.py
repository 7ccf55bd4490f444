"""The multi-path engine: m paths of each question, its prompt computed once.

Keys and values live on three levels: the task's few-shot prompt (once for the data set), the question (once
for its m paths) and each path's own tokens. A lane holds two questions, its slots the paths in flight. A slot whose
path ends starts the lane's next path at once, on the device: of the question at work, or of the one that waits beside
it. The host looks in every few steps, takes finished questions out and puts others in (`scheduler.py`).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from lmsi_jax import model
from lmsi_jax.core.config import ModelConfig
from lmsi_jax.core.rng import path_keys
from lmsi_jax.decoding.prefill import Cache, Prompt
from lmsi_jax.decoding.sampling import sample
from lmsi_jax.decoding.stop import START
from lmsi_jax.model import Block
from lmsi_jax.sharding import constrain, jit

RUNNING, STOPPED, TOO_LONG = 0, 1, 2
HELD = 2  # questions a lane holds (q): while the last paths of one run out, free slots work on the other


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fixed when the decode step compiles."""

    paths: int  # m
    max_tokens: int
    lanes: int
    slots: int
    sync_every: int
    top_k: int
    top_p: float
    ends: tuple[int, ...]  # tokens that end a path, beside the stop strings
    matched: int  # the stop automaton's final state


@struct.dataclass
class Task:
    """What all questions share: the few-shot prompt, and how to draw and stop."""

    prompt: Prompt
    stops: Int[Array, "states v"]
    key: Key[Array, ""]
    temperature: Float[Array, ""]


class Loading(NamedTuple):
    """For each lane the question to put in. All but a question's last token is in a cache; the last starts its paths."""

    held: Int[Array, " b"]  # in the place of which of the lane's questions; -1 = leave the lane alone
    row: Int[Array, " b"]  # of the prefilled cache, counted within the lane's part of the batch axis
    length: Int[Array, " b"]  # tokens in the cache
    last_token: Int[Array, " b"]
    id: Int[Array, " b"]  # stable_hash of the question's id
    wanted: Int[Array, " b"]  # paths: m, or 0 to put nothing in


class Output(struct.PyTreeNode):
    """What the paths of a lane's questions have come to: path p of question i is number i * m + p."""

    tokens: Int[Array, "b p r"]
    count: Int[Array, "b p"]
    logprob: Float[Array, "b p"]
    finish: Int[Array, "b p"]


class State(struct.PyTreeNode):
    """Everything that a decode step changes."""

    questions: Cache  # rows = b; the slots of a lane's questions one after the other
    length: Int[Array, "b q"]  # these four as in Loading
    last_token: Int[Array, "b q"]
    id: Int[Array, "b q"]
    wanted: Int[Array, "b q"]
    first: Int[Array, " b"]  # the question whose paths start first
    started: Int[Array, " b"]  # paths started, those of the first question before those of the other
    cache: Cache  # rows = n; the paths' own tokens
    path: Int[Array, "b m"]  # the number of the path that a slot works on; past the last one when idle
    position: Int[Array, "b m"]  # tokens of the path that are in the cache
    token: Int[Array, "b m"]  # the next to go in
    stop: Int[Array, "b m"]  # the stop automaton's state
    out: Output
    busy: Int[Array, ""]  # slot-steps that worked on a path, for the utilisation
    steps: Int[Array, ""]

    @property
    def paths(self) -> int:
        """Paths of a question."""
        return self.out.count.shape[1] // HELD

    @property
    def live(self) -> Bool[Array, "b m"]:
        """Is the slot working on a path?"""
        return self.path < self.out.count.shape[1]

    def of_slot(self, values: Int[Array, "b q"]) -> Int[Array, "b m"]:
        """What each slot's question has of `values`."""
        question = jnp.minimum(self.path // self.paths, HELD - 1)
        return jnp.take_along_axis(values, question, axis=1)


def _placed(state: State) -> State:
    """The state where it belongs: lanes over the batch axis, heads over theirs. Each program gives it back like this."""

    def cache(layers: Cache) -> Cache:
        place = lambda array: constrain(array, "batch", "kv_heads", "length", "head_width")  # noqa: E731
        return [(place(keys), place(values)) for keys, values in layers]

    lanes = lambda array: constrain(array, *("batch", None, None)[: array.ndim])  # noqa: E731
    rest = jax.tree.map(lanes, state.replace(questions=[], cache=[]))
    return rest.replace(questions=cache(state.questions), cache=cache(state.cache))


@functools.partial(jit, static_argnums=(0, 1, 2))
def start(config: ModelConfig, settings: Settings, question_slots: int) -> State:
    """A state in which every lane is idle."""
    b, m, p, r = settings.lanes, settings.slots, HELD * settings.paths, settings.max_tokens

    def cache(rows: int, slots: int) -> Cache:
        shape = (rows, config.kv_heads, slots, config.head_width)
        zeros = lambda: jnp.zeros(shape, model.cache_dtype(config))  # noqa: E731
        return [(zeros(), zeros()) for _ in range(config.layers)]

    full = lambda value, *shape: jnp.full(shape, value, jnp.int32)  # noqa: E731
    state = State(
        questions=cache(b, HELD * question_slots),
        length=full(0, b, HELD),
        last_token=full(0, b, HELD),
        id=full(0, b, HELD),
        wanted=full(0, b, HELD),
        first=full(0, b),
        started=full(0, b),
        cache=cache(b * m, r),
        path=full(p, b, m),
        position=full(0, b, m),
        token=full(0, b, m),
        stop=full(START, b, m),
        out=Output(full(0, b, p, r), full(0, b, p), jnp.zeros((b, p)), full(RUNNING, b, p)),
        busy=jnp.zeros((), jnp.int32),
        steps=jnp.zeros((), jnp.int32),
    )
    return _placed(state)


@functools.partial(jit, donate_argnums=(0,), static_argnums=(3,))
def load(state: State, cache: Cache, new: Loading, parts: int) -> State:
    """Put prefilled questions into lanes, and slots that are free to work on their paths.

    `parts` of the batch axis keep to themselves: a lane takes rows of `cache` that lie on its own devices.
    """
    b, paths = len(new.held), state.paths
    here = jnp.arange(HELD)[None, :] == new.held[:, None]  # (b, q)

    def put(old: Array, value: Array) -> Array:
        """Into the places `here` of an axis that runs over the questions held; `value` has the lanes' axis, or none."""
        each = jnp.repeat(here, old.shape[1] // HELD, axis=1)
        rest = [1] * (old.ndim - 2)
        return jnp.where(each.reshape(*each.shape, *rest), value, old)

    def put_cache(old: Array, prefilled: Array) -> Array:
        local = prefilled.reshape(parts, b // parts, *prefilled.shape[1:])
        rows = jax.vmap(lambda part, row: part[row])(local, new.row.reshape(parts, -1)).reshape(prefilled.shape)
        return put(old.swapaxes(1, 2), jnp.tile(rows.swapaxes(1, 2), (1, HELD, 1, 1))).swapaxes(1, 2)

    wanted_before = _take(state.wanted, jnp.maximum(new.held, 0))
    wanted_first = _take(state.wanted, state.first)
    of_other = jnp.where(
        new.held == state.first, jnp.maximum(state.started - wanted_before, 0), jnp.minimum(state.started, wanted_first)
    )
    loaded = new.held >= 0
    state = state.replace(
        questions=[tuple(map(put_cache, old, now)) for old, now in zip(state.questions, cache, strict=True)],
        length=put(state.length, new.length[:, None]),
        last_token=put(state.last_token, new.last_token[:, None]),
        id=put(state.id, new.id[:, None]),
        wanted=put(state.wanted, new.wanted[:, None]),
        first=jnp.where(loaded, HELD - 1 - new.held, state.first),
        started=jnp.where(loaded, of_other, state.started),
        out=state.out.replace(
            count=put(state.out.count, jnp.int32(0)),
            logprob=put(state.out.logprob, jnp.float32(0)),
            finish=put(state.out.finish, jnp.int32(RUNNING)),
        ),
    )
    return _placed(_start_paths(state, free=~state.live | (state.path // paths == new.held[:, None])))


def _start_paths(state: State, free: Bool[Array, "b m"]) -> State:
    """The free slots take the lane's next paths, in order of slots; idle where there are none left."""
    paths = state.paths
    in_first, in_other = _take(state.wanted, state.first), _take(state.wanted, HELD - 1 - state.first)
    number = state.started[:, None] + jnp.cumsum(free, axis=1, dtype=jnp.int32) - 1 - in_first[:, None]
    next_path = jnp.where(
        number < 0,
        (state.first * paths + in_first)[:, None] + number,
        jnp.where(number < in_other[:, None], ((HELD - 1 - state.first) * paths)[:, None] + number, HELD * paths),
    )
    started = jnp.minimum(state.started + jnp.sum(free, axis=1, dtype=jnp.int32), in_first + in_other)
    state = state.replace(path=jnp.where(free, next_path, state.path), started=started)
    return state.replace(
        position=jnp.where(free, 0, state.position),
        token=jnp.where(free, state.of_slot(state.last_token), state.token),
        stop=jnp.where(free, START, state.stop),
    )


@functools.partial(jit, static_argnums=(0, 1), donate_argnums=(4,))
def decode(
    config: ModelConfig, settings: Settings, params: model.Params | model.Quantized, task: Task, state: State
) -> tuple[State, Output]:
    """Up to `settings.sync_every` steps, fewer when every slot is idle; and a copy of what has come out so far."""
    last = state.steps + settings.sync_every

    def go_on(state: State) -> Array:
        return (state.steps < last) & jnp.any(state.live)

    state = _placed(jax.lax.while_loop(go_on, lambda s: _step(config, settings, params, task, s), state))
    return state, jax.tree.map(jnp.copy, state.out)


def _step(config: ModelConfig, settings: Settings, params: model.Params | model.Quantized, task: Task, state: State) -> State:
    live, out = state.live, state.out
    logits, cache = _forward(config, params, task, state)
    token, logprob = _draw(settings, task, state, logits)
    # A path ends with the end-of-sequence token, a stop string, or at its longest.
    stop = task.stops[state.stop, token]
    stopped = jnp.isin(token, jnp.asarray(settings.ends, jnp.int32)) | (stop == settings.matched)
    ended = live & (stopped | (state.position + 1 == settings.max_tokens))
    # Idle slots point past the last path: what they would write is dropped.
    nowhere = out.count.shape[1]
    out = Output(
        _put_token(out.tokens, state.path, state.position, token),
        _put(out.count, state.path, state.position + 1),
        _add(out.logprob, state.path, logprob),
        _put(out.finish, jnp.where(ended, state.path, nowhere), jnp.where(stopped, STOPPED, TOO_LONG)),
    )
    state = state.replace(
        cache=cache,
        position=jnp.minimum(state.position + 1, settings.max_tokens - 1),
        token=token,
        stop=stop,
        out=out,
        busy=state.busy + jnp.sum(live, dtype=jnp.int32),
        steps=state.steps + 1,
    )
    return _start_paths(state, free=~live | ended)


def _forward(
    config: ModelConfig, params: model.Params | model.Quantized, task: Task, state: State
) -> tuple[Float[Array, "n v"], Cache]:
    """Logits after each slot's token, and the paths' cache with that token's keys and values in it.

    The cache is a ring: whatever its path, a token goes into the slot that this step's number gives, so that one write
    serves all rows; a path's tokens are those of its last steps.
    """
    b, m = state.path.shape
    n, prompt = b * m, task.prompt
    position = state.position.reshape(n, 1)
    length = state.of_slot(state.length).reshape(n, 1)
    held = state.of_slot(jnp.broadcast_to(jnp.arange(HELD)[None, :], (b, HELD))).reshape(n, 1)
    half = state.questions[0][0].shape[2] // HELD
    slots = jnp.arange(HELD * half)[None, :]
    in_question = (slots // half == held) & (slots % half < length)
    ring = state.cache[0][0].shape[2]
    at = state.steps % ring
    age = (at - jnp.arange(ring)[None, :]) % ring  # steps since a slot was written
    absolute = prompt.length + length + position
    past = [
        [
            *shared,
            Block(*question, in_question, prompt.length + slots % half),
            Block(*own, age <= position, absolute - age, at),
        ]
        for shared, question, own in zip(prompt.blocks(), state.questions, state.cache, strict=True)
    ]
    itself = jnp.ones((n, 1, 1), bool)
    logits, cache = model.forward(config, params, state.token.reshape(n, 1), absolute, itself, past)
    return logits[:, 0], cache


def _draw(
    settings: Settings, task: Task, state: State, logits: Float[Array, "n v"]
) -> tuple[Int[Array, "b m"], Float[Array, "b m"]]:
    keys = path_keys(task.key, state.of_slot(state.id).reshape(-1), (state.path % settings.paths).reshape(-1))
    keys = jax.vmap(jax.random.fold_in)(keys, state.position.reshape(-1))
    token, logprob = sample(logits, keys, task.temperature, top_k=settings.top_k, top_p=settings.top_p)
    return token.astype(jnp.int32).reshape(state.path.shape), logprob.reshape(state.path.shape)


def _take(values: Int[Array, "b q"], index: Int[Array, " b"]) -> Int[Array, " b"]:
    return jnp.take_along_axis(values, index[:, None], axis=1)[:, 0]


# Indexed writes, each within one row of the mapped axis, so that a sharded axis needs no communication.
_put = jax.vmap(lambda row, at, new: row.at[at].set(new, mode="drop"))
_add = jax.vmap(lambda row, at, new: row.at[at].add(new, mode="drop"))
_put_token = jax.vmap(lambda row, at, position, new: row.at[at, position].set(new, mode="drop"))
