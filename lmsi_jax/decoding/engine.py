"""The multi-path engine: it samples m paths of each question and prefills the question's prompt once.

The KV cache has three levels: the prefix that all questions share (the few-shot prompt), the question (once for its m
paths) and each path's own tokens. A lane works on two questions, the current one and the next. Its slots are the paths in
flight. When a path ends, its slot starts the lane's next path at once, on the device. That path belongs to the current
question, or to the next one when all paths of the current question have started. Every `sync_every` steps the host evicts
finished questions and loads others (`scheduler.py`).

Example: one lane of three slots, two questions with m = 4 paths each. Path p of question i has the number i * m + p.

    paths in the slots   started   event
    0 1 2                3         question 0 is current
    0 3 2                4         path 1 has ended: its slot starts the last path of question 0
    4 3 2                5         path 0 has ended: its slot starts the first path of question 1
    4 5 6                7         question 0 is complete: the host replaces it; then `current` is 1 and `started` is 3
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from lmsi_jax.core.rng import path_keys
from lmsi_jax.decoding.config import Truncation
from lmsi_jax.decoding.prefill import Cache, Prefix
from lmsi_jax.decoding.sampling import sample, take
from lmsi_jax.model import transformer
from lmsi_jax.model.attention import KVBlock
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.transformer import AnyParams
from lmsi_jax.sharding.rules import constrain, jit

RUNNING, STOPPED, TOO_LONG = 0, 1, 2
PER_LANE = 2  # questions per lane (q): while the last paths of one finish, free slots work on the other


@dataclasses.dataclass(frozen=True)
class Limits:
    """The shapes that decoding compiles for; lengths are in tokens."""

    lanes: int  # lanes, over all devices
    slots: int  # paths in flight per lane
    paths: int  # maximum paths of a question (m)
    max_tokens: int  # maximum length of a path
    question: int  # maximum length of a question; Engine rounds its prefilled part up to a multiple of 32
    sync_every: int = 16  # decode steps between two synchronisations with the host
    logprobs: bool = False  # return the log-probability of each token, not only their sum


class Context(struct.PyTreeNode):
    """The inputs that all questions of a call share."""

    prefix: Prefix
    stops: Int[Array, "states v"]  # the transition table; its last state means that a stop string is complete
    key: Key[Array, ""]


class Questions(NamedTuple):
    """Questions of the lanes: one per lane (b,) or both (b, q). The last token is not prefilled: every path starts with it."""

    length: Int[Array, "b *q"]  # prefilled tokens
    last_token: Int[Array, "b *q"]
    id: Int[Array, "b *q"]  # stable_hash of the question's id
    wanted: Int[Array, "b *q"]  # paths to sample; 0 if there is no question
    limit: Int[Array, "b *q"]  # maximum tokens of a path
    start: Int[Array, "b *q"]  # the start state of its paths in the stop table
    temperature: Float[Array, "b *q"]


class Loading(NamedTuple):
    """The question to load into each lane."""

    place: Int[Array, " b"]  # which of the lane's two questions is replaced; -1 leaves the lane unchanged
    row: Int[Array, " b"]  # row of the prefilled cache, counted within the lane's shard of the batch axis
    question: Questions


class Output(struct.PyTreeNode):
    """The samples so far. The axis p runs over the 2 m path numbers of a lane: path p of question i has number i * m + p."""

    tokens: Int[Array, "b p r"]
    count: Int[Array, "b p"]  # sampled tokens
    logprob: Float[Array, "b p"]  # sum over the sampled tokens, in nats
    finish: Int[Array, "b p"]  # RUNNING, STOPPED or TOO_LONG
    logprobs: Float[Array, "b p r"] | None = None  # of each token, if `Limits.logprobs` is set


class Decoded(NamedTuple):
    """What a decode call returns beside the state: copies, since the next call donates the state."""

    out: Output
    slot_steps: Int[Array, " 2"]  # of this call: those that worked on a path, and all


class State(struct.PyTreeNode):
    """Everything that a decode step changes, for b lanes of s slots and q = 2 questions.

    Attributes:
      question_cache: KV cache of the questions, rows = b. A row stores the lane's two questions one after the other.
      questions: the lane's two questions.
      current: the question (0 or 1) whose paths start first.
      started: how many paths of the two questions have started; all those of the current one start before the other's.
      cache: KV cache of the paths' own tokens, rows = b * s. It is a ring buffer: a step writes one index for all rows.
      path: the number of the path in each slot, or 2 m if the slot is idle.
      position: how many tokens of the path are in the cache.
      token: the next input token.
      stop: the state in the stop table.
      out: the samples so far.
      steps: decode steps so far.
    """

    question_cache: Cache
    questions: Questions
    current: Int[Array, " b"]
    started: Int[Array, " b"]
    cache: Cache
    path: Int[Array, "b s"]
    position: Int[Array, "b s"]
    token: Int[Array, "b s"]
    stop: Int[Array, "b s"]
    out: Output
    steps: Int[Array, ""]

    @property
    def paths(self) -> int:
        """Maximum number of paths of a question (m)."""
        return self.out.count.shape[1] // PER_LANE

    @property
    def live(self) -> Bool[Array, "b s"]:
        """Whether each slot works on a path."""
        return self.path < self.out.count.shape[1]

    def of_slot(self, values: Array) -> Array:
        """Look up each slot's question in `values` (b, q) and return the entries (b, s)."""
        question = jnp.minimum(self.path // self.paths, PER_LANE - 1)
        return jnp.take_along_axis(values, question, axis=1)


# (architecture, parameters, context, state) -> logits after each slot's token, and the paths' cache with that token appended.
LogitsFunction = Callable[[ModelConfig, AnyParams, Context, State], tuple[Float[Array, "n v"], Cache]]


@dataclasses.dataclass(frozen=True)
class Program:
    """The static arguments of the compiled decode step."""

    config: ModelConfig
    limits: Limits
    truncation: Truncation
    ends: tuple[int, ...]  # tokens that end a path, in addition to the stop strings
    logits: LogitsFunction


def _constrained(state: State) -> State:
    """Shard the state: lanes over the batch axis, KV heads over their axis. Every compiled function returns it like this."""

    def cache(layers: Cache) -> Cache:
        place = lambda array: constrain(array, "batch", "kv_heads", "length", "head_width")  # noqa: E731
        return [(place(keys), place(values)) for keys, values in layers]

    lanes = lambda array: constrain(array, *("batch", None, None)[: array.ndim])  # noqa: E731
    rest = jax.tree.map(lanes, state.replace(question_cache=[], cache=[]))
    return rest.replace(question_cache=cache(state.question_cache), cache=cache(state.cache))


@functools.partial(jit, static_argnums=(0, 1))
def start(config: ModelConfig, limits: Limits) -> State:
    """Return a state in which every lane is idle."""
    b, s, p, r = limits.lanes, limits.slots, PER_LANE * limits.paths, limits.max_tokens

    def cache(rows: int, slots: int) -> Cache:
        shape = (rows, config.kv_heads, slots, config.head_width)
        zeros = lambda: jnp.zeros(shape, transformer.cache_dtype(config))  # noqa: E731
        return [(zeros(), zeros()) for _ in range(config.layers)]

    full = lambda value, *shape: jnp.full(shape, value, jnp.int32)  # noqa: E731
    state = State(
        question_cache=cache(b, PER_LANE * limits.question),
        questions=Questions._make([*[full(0, b, PER_LANE)] * 6, jnp.ones((b, PER_LANE))]),
        current=full(0, b),
        started=full(0, b),
        cache=cache(b * s, r),
        path=full(p, b, s),
        position=full(0, b, s),
        token=full(0, b, s),
        stop=full(0, b, s),
        out=Output(
            full(0, b, p, r),
            full(0, b, p),
            jnp.zeros((b, p)),
            full(RUNNING, b, p),
            jnp.zeros((b, p, r)) if limits.logprobs else None,
        ),
        steps=full(0),
    )
    return _constrained(state)


@functools.partial(jit, donate_argnums=(0,), static_argnums=(3,))
def load(state: State, prefilled: Cache, new: Loading, shards: int) -> State:
    """Load prefilled questions into lanes and start their paths in free slots.

    No data moves between the `shards` of the batch axis: a lane takes only rows of `prefilled` on its own devices.
    """
    b, paths = len(new.place), state.paths
    replaced = jnp.arange(PER_LANE)[None, :] == new.place[:, None]  # (b, q)

    def put(old: Array, value: Array) -> Array:
        """Replace the entries of the questions that are loaded, along axis 1; `value` has a lane axis or is a scalar."""
        each = jnp.repeat(replaced, old.shape[1] // PER_LANE, axis=1)
        rest = [1] * (old.ndim - 2)
        return jnp.where(each.reshape(*each.shape, *rest), value, old)

    def put_cache(old: Array, prefilled: Array) -> Array:
        local = prefilled.reshape(shards, b // shards, *prefilled.shape[1:])
        rows = jax.vmap(lambda shard, row: shard[row])(local, new.row.reshape(shards, -1)).reshape(prefilled.shape)
        return put(old.swapaxes(1, 2), jnp.tile(rows.swapaxes(1, 2), (1, PER_LANE, 1, 1))).swapaxes(1, 2)

    wanted = state.questions.wanted
    wanted_before = take(wanted, jnp.maximum(new.place, 0))
    wanted_current = take(wanted, state.current)
    started_of_other = jnp.where(
        new.place == state.current, jnp.maximum(state.started - wanted_before, 0), jnp.minimum(state.started, wanted_current)
    )
    loaded = new.place >= 0
    state = state.replace(
        question_cache=[tuple(map(put_cache, old, now)) for old, now in zip(state.question_cache, prefilled, strict=True)],
        questions=jax.tree.map(lambda old, value: put(old, value[:, None]), state.questions, new.question),
        current=jnp.where(loaded, PER_LANE - 1 - new.place, state.current),
        started=jnp.where(loaded, started_of_other, state.started),
        out=state.out.replace(
            count=put(state.out.count, jnp.int32(0)),
            logprob=put(state.out.logprob, jnp.float32(0)),
            finish=put(state.out.finish, jnp.int32(RUNNING)),
        ),
    )
    return _constrained(_start_paths(state, free=~state.live | (state.path // paths == new.place[:, None])))


def _start_paths(state: State, free: Bool[Array, "b s"]) -> State:
    """Start the lane's next paths in the free slots, in slot order; a slot is idle when no paths are left."""
    paths, other = state.paths, PER_LANE - 1 - state.current
    in_current, in_other = take(state.questions.wanted, state.current), take(state.questions.wanted, other)
    number = state.started[:, None] + jnp.cumsum(free, axis=1, dtype=jnp.int32) - 1 - in_current[:, None]
    next_path = jnp.where(
        number < 0,
        (state.current * paths + in_current)[:, None] + number,
        jnp.where(number < in_other[:, None], (other * paths)[:, None] + number, PER_LANE * paths),
    )
    started = jnp.minimum(state.started + jnp.sum(free, axis=1, dtype=jnp.int32), in_current + in_other)
    state = state.replace(path=jnp.where(free, next_path, state.path), started=started)
    return state.replace(
        position=jnp.where(free, 0, state.position),
        token=jnp.where(free, state.of_slot(state.questions.last_token), state.token),
        stop=jnp.where(free, state.of_slot(state.questions.start), state.stop),
    )


@functools.partial(jit, static_argnums=(0,), donate_argnums=(3,))
def decode(program: Program, params: AnyParams, context: Context, state: State) -> tuple[State, Decoded]:
    """Run up to `sync_every` decode steps, fewer if every slot is idle."""
    first = state.steps

    def continues(carry: tuple[State, Array]) -> Array:
        state, _ = carry
        return (state.steps < first + program.limits.sync_every) & jnp.any(state.live)

    def step(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, busy = carry
        return _step(program, params, context, state), busy + jnp.sum(state.live, dtype=jnp.int32)

    state, busy = jax.lax.while_loop(continues, step, (state, jnp.int32(0)))
    state = _constrained(state)
    slot_steps = jnp.stack([busy, (state.steps - first) * state.path.size])
    return state, Decoded(jax.tree.map(jnp.copy, state.out), slot_steps)


def _step(program: Program, params: AnyParams, context: Context, state: State) -> State:
    live, out = state.live, state.out
    logits, cache = program.logits(program.config, params, context, state)
    token, logprob = _draw(program.truncation, context.key, state, logits)
    # A path ends with an end token, a stop string, or at its maximum length.
    stop = context.stops[state.stop, token]
    stopped = jnp.isin(token, jnp.asarray(program.ends, jnp.int32)) | (stop == len(context.stops) - 1)
    ended = live & (stopped | (state.position + 1 >= state.of_slot(state.questions.limit)))
    # Idle slots have a path number out of range, so that their writes are dropped.
    out_of_range = out.count.shape[1]
    out = Output(
        _put_token(out.tokens, state.path, state.position, token),
        _put(out.count, state.path, state.position + 1),
        _add(out.logprob, state.path, logprob),
        _put(out.finish, jnp.where(ended, state.path, out_of_range), jnp.where(stopped, STOPPED, TOO_LONG)),
        None if out.logprobs is None else _put_token(out.logprobs, state.path, state.position, logprob),
    )
    state = state.replace(
        cache=cache,
        position=jnp.minimum(state.position + 1, program.limits.max_tokens - 1),
        token=token,
        stop=stop,
        out=out,
        steps=state.steps + 1,
    )
    return _start_paths(state, free=~live | ended)


def model_logits(config: ModelConfig, params: AnyParams, context: Context, state: State) -> tuple[Float[Array, "n v"], Cache]:
    """Return the transformer's logits after each slot's token, and the paths' cache with that token appended.

    The cache is a ring buffer. Every row writes its token at the index `steps` modulo the ring's length, so that one write
    serves all rows. The tokens of a path are therefore those of the last `position + 1` steps.
    """
    b, slots = state.path.shape
    n, prefix = b * slots, context.prefix
    position = state.position.reshape(n, 1)
    length = state.of_slot(state.questions.length).reshape(n, 1)
    question = state.of_slot(jnp.broadcast_to(jnp.arange(PER_LANE)[None, :], (b, PER_LANE))).reshape(n, 1)
    half = state.question_cache[0][0].shape[2] // PER_LANE
    index = jnp.arange(PER_LANE * half)[None, :]
    in_question = (index // half == question) & (index % half < length)
    ring = state.cache[0][0].shape[2]
    at = state.steps % ring
    age = (at - jnp.arange(ring)[None, :]) % ring  # steps since each index was written
    absolute = prefix.length + length + position
    past = [
        [
            *shared,
            KVBlock(*questions, in_question, prefix.length + index % half),
            KVBlock(*own, age <= position, absolute - age, at),
        ]
        for shared, questions, own in zip(prefix.blocks(), state.question_cache, state.cache, strict=True)
    ]
    itself = jnp.ones((n, 1, 1), bool)
    logits, cache = transformer.forward(config, params, state.token.reshape(n, 1), absolute, itself, past)
    return logits[:, 0], cache


def _draw(
    truncation: Truncation, key: Key[Array, ""], state: State, logits: Float[Array, "n v"]
) -> tuple[Int[Array, "b s"], Float[Array, "b s"]]:
    keys = path_keys(key, state.of_slot(state.questions.id).reshape(-1), (state.path % state.paths).reshape(-1))
    keys = jax.vmap(jax.random.fold_in)(keys, state.position.reshape(-1))
    temperature = state.of_slot(state.questions.temperature).reshape(-1)
    token, logprob = sample(logits, keys, temperature, truncation)
    return token.astype(jnp.int32).reshape(state.path.shape), logprob.reshape(state.path.shape)


# Indexed writes, each within one row of the mapped axis, so that a sharded axis needs no communication.
_put = jax.vmap(lambda row, at, new: row.at[at].set(new, mode="drop"))
_add = jax.vmap(lambda row, at, new: row.at[at].add(new, mode="drop"))
_put_token = jax.vmap(lambda row, at, position, new: row.at[at, position].set(new, mode="drop"))
