"""The scheduler alone, at size: scripted logits in place of a model, so that every path is known beforehand."""

import json
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lmsi_jax.benchmarks.decode import Ids
from lmsi_jax.core import rng
from lmsi_jax.core.config import Config, ModelConfig, SampleConfig
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.decoding import engine
from lmsi_jax.decoding.scheduler import Decoder, Decoding, Request
from lmsi_jax.pipeline import decode as pipeline
from lmsi_jax.pipeline.session import Session
from lmsi_jax.sharding import use_mesh
from tests.conftest import mesh_of, place

CONFIG = ModelConfig(vocab=16, width=8, layers=1, heads=1, kv_heads=1, head_width=4, mlp=8)
END, LONGEST = 15, 6


def script(question, path, position):
    """The token of a path at a position: some paths end at once, some run to their longest."""
    mixed = (question % 9973) * 31 + path * 7
    length = mixed % (LONGEST + 2)
    return jnp.where(position == length, END, (mixed + 3 * position) % END)


class Letters(Ids):
    """Token i is the i-th letter."""

    ends = (END,)

    def __init__(self):
        super().__init__(CONFIG.vocab)
        self.token_bytes = [bytes([ord("a") + i]) for i in range(END)] + [b""]


@pytest.fixture
def scripted(monkeypatch):
    """The engine with `script` for a model."""

    def forward(config, params, task, state):
        path = state.path % state.paths
        token = script(state.of_slot(state.id), path, state.position)
        return 1e4 * jax.nn.one_hot(token.reshape(-1), CONFIG.vocab), state.cache

    jax.clear_caches()
    monkeypatch.setattr(engine, "_forward", forward)
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def nothing():
    """Parameters that only the prefill looks at."""
    from lmsi_jax import model

    with use_mesh(mesh_of(1, 1, 1)):
        return model.init(CONFIG, jax.random.key(0))


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


@pytest.mark.slow
def test_ten_thousand_questions_killed_at_twenty_instants(scripted, nothing, tmp_path, monkeypatch):
    """Catches: a path lost, repeated or mixed up when a lane takes its next question; a half shard taken for whole."""
    session = Session(Config(sample=SampleConfig(paths=32, lanes=64, slots=32, max_tokens=LONGEST, questions_per_shard=500)))
    session.mesh, session.tokenizer, session.model_config = mesh_of(1, 1, 1), Letters(), CONFIG
    monkeypatch.setattr(session, "params", lambda checkpoint: nothing)
    requests = [Request(str(i), "1 2") for i in range(10_000)]
    tmp = epath.Path(tmp_path)
    output = tmp / "paths.jsonl"
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
        calls_left = draw.randrange(1, 12) if kills < 20 else -1
        try:
            decoding = pipeline.sampling(session, 1.0)
            job = pipeline.Job("", requests, decoding, ("test",), tmp, output, "test", tmp / "m")
            pipeline.decode_to_file(session, "", job)
        except Killed:
            kills += 1
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert kills == 20
    assert [(row["id"], row["path"]) for row in rows] == [(r.id, p) for r in requests for p in range(32)]
    expected = texts([r.id for r in requests], 32)
    assert {(row["id"], row["path"]): row["text"] for row in rows} == expected
    assert {row["finish"] for row in rows} == {"stop", "length"} and all(row["logprob"] == 0 for row in rows)


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1)])
def test_order_and_devices_change_nothing(shape, scripted, nothing):
    """Catches: a question that a part of the devices takes from another's rows; results that follow the order."""
    mesh = mesh_of(*shape)
    requests = [Request(f"q{i}", "1 2 3") for i in range(50)]
    random.Random(1).shuffle(requests)
    with use_mesh(mesh):
        decoding = Decoding(paths=5, temperature=1.0, max_tokens=LONGEST, lanes=8, slots=3, sync_every=3)
        decoder = Decoder(mesh, CONFIG, place(mesh, CONFIG, nothing), Letters(), decoding, "4", 3, rng.stage_key(0, "test"))
        found = [path for paths in decoder.run(requests) for path in paths]
    assert len(found) == 250
    assert {(p.id, p.path): p.text for p in found} == texts([r.id for r in requests], 5)


def test_token_ids_in_place_of_texts(nothing):
    """Catches: ids of a few-shot prompt or a question that are encoded again, or get a beginning of text."""
    mesh = mesh_of(1, 1, 1)
    decoding = Decoding(paths=2, temperature=1.0, max_tokens=LONGEST, lanes=1, slots=1)
    with use_mesh(mesh):
        run = lambda few_shot, request: next(  # noqa: E731
            Decoder(mesh, CONFIG, nothing, Letters(), decoding, few_shot, 3, rng.stage_key(0, "test")).run([request])
        )
        assert run("4 5", Request("q", "1 2 3")) == run([4, 5], Request("q", tokens=(1, 2, 3)))


def test_slots_do_not_idle_while_a_question_runs_out(scripted, nothing):
    """Catches: slots that wait for the longest path of their question, or for the host."""
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        decoding = Decoding(paths=32, temperature=1.0, max_tokens=LONGEST, lanes=2, slots=16, sync_every=2)
        decoder = Decoder(mesh, CONFIG, nothing, Letters(), decoding, "", 3, rng.stage_key(0, "test"))
        assert sum(1 for _ in decoder.run([Request(str(i), "1 2") for i in range(60)])) == 60
    assert decoder.utilisation > 0.95


def test_host_memory_stays_flat(scripted, nothing):
    """Catches: results, caches or compiled programs that pile up with the questions."""
    seen = []
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        decoding = Decoding(paths=8, temperature=1.0, max_tokens=LONGEST, lanes=8, slots=8)
        decoder = Decoder(mesh, CONFIG, nothing, Letters(), decoding, "", 3, rng.stage_key(0, "test"))
        for done, _ in enumerate(decoder.run([Request(str(i), "1 2") for i in range(1_300)])):
            if done % 100 == 0:
                seen.append(int(Path("/proc/self/statm").read_text().split()[1]))  # pages in memory
    assert max(seen[3:]) < 1.05 * seen[2], seen
