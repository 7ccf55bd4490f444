"""The scheduler alone, at size: scripted logits in place of a model, so that every path is known beforehand."""

import functools
import gc
import json
import random
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lmsi_jax.benchmarks.workloads import Ids
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core import rng
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.decoding import engine
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.decoding.engine import Limits
from lmsi_jax.decoding.scheduler import Engine, Request, _Question, _Queue
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.pipeline.runtime import Model, Runtime
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages import decode as stage
from tests.conftest import initial, mesh_of, place

CONFIG = ModelConfig(vocab=16, width=8, layers=1, heads=1, kv_heads=1, head_width=4, mlp=8)
END, LONGEST = 15, 6
KEY = rng.stage_key(0, "test")


def script(question, path, position):
    """The token of a path at a position: some paths end at once, some run to their longest."""
    mixed = (question % 9973) * 31 + path * 7
    length = mixed % (LONGEST + 2)
    return jnp.where(position == length, END, (mixed + 3 * position) % END)


def scripted(config, params, context, state):
    """`script` in place of the transformer."""
    path = state.path % state.paths
    token = script(state.of_slot(state.questions.id), path, state.position)
    return 1e4 * jax.nn.one_hot(token.reshape(-1), CONFIG.vocab), state.cache


class Letters(Ids):
    """Token i is the i-th letter."""

    ends = (END,)

    def __init__(self):
        super().__init__(CONFIG.vocab)
        self.token_bytes = [bytes([ord("a") + i]) for i in range(END)] + [b""]


@pytest.fixture(scope="module")
def nothing():
    """Parameters that only the prefill looks at."""
    with use_mesh(mesh_of(1, 1, 1)):
        return initial(CONFIG)


def sampled(paths):
    return Sampling(paths=paths, temperature=1.0, max_tokens=LONGEST, stops=())


def texts(ids, paths):
    """What the script says, by (id, path)."""
    hashes = np.array([stable_hash(id) for id in ids])
    grid = np.asarray(script(hashes[:, None, None], np.arange(paths)[None, :, None], np.arange(LONGEST)[None, None, :]))
    found = {}
    for id, rows in zip(ids, grid, strict=True):
        for path, row in enumerate(rows):
            found[id, path] = "".join(chr(ord("a") + t) for t in row).split(chr(ord("a") + END))[0]
    return found


class Killed(BaseException):
    """In the place of a signal that cannot be handled."""


class ScriptedRuntime(Runtime):
    """One device, and one model that is never loaded."""

    def __init__(self, metrics, params):
        super().__init__(MeshConfig(), metrics, "test")
        self.__dict__["mesh"] = mesh_of(1, 1, 1)
        self.__dict__["model"] = Model("", CONFIG, Letters(), params)

    def load(self, *arguments, **options):
        return self.__dict__["model"]


@pytest.mark.slow
def test_thousands_of_questions_killed_at_twenty_instants(nothing, tmp_path, monkeypatch):
    """Catches: a path lost, repeated or mixed up when a lane takes its next question; a half shard taken for whole."""
    tmp = epath.Path(tmp_path)
    output, runtime = tmp / "paths.jsonl", ScriptedRuntime(tmp / "m", nothing)
    requests = [Request(str(i), "1 2") for i in range(3_000)]
    job = stage.Job(
        decoding=stage.Decoding(
            seed=0,
            stream=("test",),
            prompts=Prompts("", ""),
            numerics=Numerics(cache_dtype="compute", sum_dtype="compute"),
            sampling=sampled(8),
        ),
        batching=Batching(lanes=64, slots=8, questions_per_shard=150),
        prefix="",
        requests=requests,
        checkpoint=tmp,
        output=output,
        scratch=tmp,
    )
    monkeypatch.setattr(stage, "Engine", functools.partial(Engine, logits=scripted))
    draw, untouched = random.Random(0), engine.decode
    calls_left = 0

    def decode(*arguments):
        nonlocal calls_left
        calls_left -= 1
        if calls_left == 0:
            raise Killed
        return untouched(*arguments)

    monkeypatch.setattr(engine, "decode", decode)
    kills = 0
    while not output.exists():
        calls_left = draw.randrange(1, 6) if kills < 20 else -1
        try:
            stage.decode_to_file(runtime, job)
        except Killed:
            kills += 1
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert kills == 20
    assert [(row["id"], row["path"]) for row in rows] == [(r.id, p) for r in requests for p in range(8)]
    expected = texts([r.id for r in requests], 8)
    assert {(row["id"], row["path"]): row["text"] for row in rows} == expected
    assert {row["finish"] for row in rows} == {"stop", "length"} and all(row["logprob"] == 0 for row in rows)


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1)])
def test_order_and_devices_change_nothing(shape, nothing):
    """Catches: a question that a part of the devices takes from another's rows; results that follow the order."""
    mesh = mesh_of(*shape)
    requests = [Request(f"q{i}", "1 2 3") for i in range(50)]
    random.Random(1).shuffle(requests)
    with use_mesh(mesh):
        limits = Limits(lanes=8, slots=3, paths=5, max_tokens=LONGEST, question=3, sync_every=3)
        engine, params = Engine(mesh, CONFIG, Letters(), limits, logits=scripted), place(mesh, CONFIG, nothing)
        found = [p for paths in engine.sample(params, engine.prefill(params, "4"), requests, sampled(5), KEY) for p in paths]
    assert len(found) == 250
    assert {(p.id, p.path): p.text for p in found} == texts([r.id for r in requests], 5)


def test_each_request_ends_at_its_own_number_of_paths_and_tokens(nothing):
    """Catches: a lane that goes on to the paths of its other question too early or too late where the two differ in number."""
    asked = {f"q{i}": (1 + i % 5, 1 + i % LONGEST) for i in range(40)}
    requests = [
        Request(id, "1 2 3", sampling=Sampling(paths=paths, temperature=1.0, max_tokens=longest, stops=()))
        for id, (paths, longest) in asked.items()
    ]
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        limits = Limits(lanes=4, slots=3, paths=5, max_tokens=LONGEST, question=3, sync_every=3)
        engine = Engine(mesh, CONFIG, Letters(), limits, logits=scripted)
        prefix = engine.prefill(nothing, "4")
        found = [path for paths in engine.sample(nothing, prefix, requests, sampled(5), KEY) for path in paths]
    whole = texts(asked, 5)
    expected = {(id, p): whole[id, p][:longest] for id, (paths, longest) in asked.items() for p in range(paths)}
    assert len(found) == len(expected) and {(p.id, p.path): p.text for p in found} == expected
    assert all(p.num_tokens <= asked[p.id][1] for p in found)


def test_token_ids_in_place_of_texts(nothing):
    """Catches: ids of a few-shot prompt or a question that are encoded again, or get a beginning of text."""
    mesh = mesh_of(1, 1, 1)
    with use_mesh(mesh):
        engine = Engine(mesh, CONFIG, Letters(), Limits(lanes=1, slots=1, paths=2, max_tokens=LONGEST, question=3))
        run = lambda prefix, request: next(  # noqa: E731
            engine.sample(nothing, engine.prefill(nothing, prefix), [request], sampled(2), KEY)
        )
        assert run("4 5", Request("q", "1 2 3")) == run([4, 5], Request("q", tokens=(1, 2, 3)))


def test_slots_do_not_idle_while_a_question_runs_out(nothing):
    """Catches: slots that wait for the longest path of their question, or for the host."""
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        limits = Limits(lanes=2, slots=16, paths=32, max_tokens=LONGEST, question=3, sync_every=2)
        engine = Engine(mesh, CONFIG, Letters(), limits, logits=scripted)
        requests, prefix = [Request(str(i), "1 2") for i in range(60)], engine.prefill(nothing, "")
        assert sum(1 for _ in engine.sample(nothing, prefix, requests, sampled(32), KEY)) == 60
    assert engine.utilisation > 0.95


def test_lanes_begin_the_next_group_while_one_ends(nothing):
    """Catches: slots that idle at the end of each shard; groups that all end late, since short questions of any start first."""
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        limits = Limits(lanes=4, slots=8, paths=32, max_tokens=LONGEST, question=40, sync_every=2)
        engine = Engine(mesh, CONFIG, Letters(), limits, logits=scripted)
        requests = [Request(str(i), " ".join(["1"] * (2 + 33 * (i % 2)))) for i in range(64)]  # of two widths
        prefix = engine.prefill(nothing, "")
        order = [int(paths[0].id) for paths in engine.sample(nothing, prefix, requests, sampled(32), KEY, group=8)]
    assert sorted(order) == list(range(64)) and engine.utilisation > 0.9
    for group in range(6):  # all of a group end before the group after the next does
        assert max(order.index(8 * group + i) for i in range(8)) < max(order.index(8 * (group + 2) + i) for i in range(8))
    assert {i for i in order[:24]} >= set(range(8)), order


def test_prefilled_questions_do_not_pile_up():
    """Catches: questions that wait for a shard of long paths while others take many, each keeping a cache in memory."""

    class Cache(list):
        __hash__ = object.__hash__

    made, seen = weakref.WeakSet(), []

    def prefill(width, dealt):
        assert max(map(len, dealt)) <= 2
        made.add(cache := Cache())
        return cache

    questions = [_Question(Request(str(i)), np.zeros(1, np.int32), sampled(1)) for i in range(400)]
    queue = _Queue([(32 * (1 + i // 5 % 2), q) for i, q in enumerate(questions)], shards=8, most=2, prefill=prefill)
    for turn in range(500):
        if (ready := queue.take(7 if turn % 3 else turn // 3 % 8)).question is not None:
            seen.append(int(ready.question.request.id))
        del ready
        gc.collect()
        assert len(made) <= 8 * 2, turn
    assert sorted(seen) == list(range(400))


def test_host_memory_stays_flat(nothing):
    """Catches: results, caches or compiled programs that pile up with the questions."""
    seen = []
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        limits = Limits(lanes=8, slots=8, paths=8, max_tokens=LONGEST, question=3)
        engine = Engine(mesh, CONFIG, Letters(), limits, logits=scripted)
        requests, prefix = [Request(str(i), "1 2") for i in range(1_300)], engine.prefill(nothing, "")
        for done, _ in enumerate(engine.sample(nothing, prefix, requests, sampled(8), KEY)):
            if done % 100 == 0:
                seen.append(int(Path("/proc/self/statm").read_text().split()[1]))  # pages in memory
    assert max(seen[3:]) < 1.05 * seen[2], seen
