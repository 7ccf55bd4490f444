"""Sampling from a server, against a real one on this machine that misbehaves."""

import json
import math

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import fingerprint, read_jsonl, write_jsonl
from lmsi_jax.core.settings import build, traced
from lmsi_jax.decoding import endpoint as client
from lmsi_jax.decoding.config import Batching, EndpointConfig, SampleConfig, Sampling
from lmsi_jax.decoding.scheduler import Request
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import Parts
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.stages.decode import Decoding, Job
from lmsi_jax.stages.endpoint_sampling import _Sampler, sample_to_file
from tests.server import Canned, Server, right_body

FEW_SHOT = "Q: 1 + 1?\nA: The answer is 2.\n\n"
REQUESTS = [Request(f"q{i}", f"Q: {i} + {i}?\nA:") for i in range(12)]
FAULTS = ["busy", "broken", "slow", "cut", "garbled", "empty", "fewer", ""]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No second is lost in waiting between tries."""
    monkeypatch.setattr(client, "LONGEST_WAIT", 0.01)


def job_of(server, tmp_path, tokenizer, requests=REQUESTS, paths=4, enough=None, **changes):
    """What it takes to sample these requests."""
    options = dict(url=server.url, model="m", timeout=10.0, concurrency=4, api=server.api)
    tmp = epath.Path(tmp_path)
    decoding = Decoding(
        seed=0,
        stream=("sample", 1),
        prompts=Prompts(FEW_SHOT, ""),
        numerics=Numerics(),
        sampling=Sampling(paths=paths),
    )
    job = Job(
        decoding=decoding,
        batching=Batching(),
        prefix=FEW_SHOT,
        requests=requests,
        checkpoint=tmp / "none",
        output=tmp / "paths.jsonl",
        scratch=tmp / "scratch",
        enough=enough,
    )
    return job, EndpointConfig(**{**options, **changes}), tokenizer


def sample(server, tmp_path, tokenizer, **options):
    """The rows that are written for these requests."""
    job, config, tokenizer = job_of(server, tmp_path, tokenizer, **options)
    runtime = Runtime(MeshConfig(), epath.Path(tmp_path) / "metrics", "rounds/1/sample")
    sample_to_file(runtime, job, config, tokenizer)
    return list(read_jsonl(job.output))


@pytest.fixture(scope="module")
def sampler(tmp_path_factory, tokenizer):
    """What turns replies into rows."""
    return _Sampler(*job_of(Server(), tmp_path_factory.mktemp("sampler"), tokenizer))


def test_every_path_comes_once_whatever_the_server_does(tmp_path, tokenizer):
    """Catches: a fault that loses a path or doubles one; an answer of fewer samples taken for all."""
    rows = sample(Server(FAULTS), tmp_path, tokenizer, timeout=0.5)
    assert [(row["id"], row["path"]) for row in rows] == [(r.id, p) for r in REQUESTS for p in range(4)]
    for row in rows:
        number = int(row["id"][1:])
        assert row["text"].startswith(f" {number} + {number} is {2 * number}.") and "Q:" not in row["text"]
        assert row["num_tokens"] > 0 and row["finish"] in ("stop", "length")
    assert {row["finish"] for row in rows} == {"stop", "length"}
    assert len({row["text"] for row in rows}) == len(rows)


def test_the_requests_say_what_the_config_says(tmp_path, tokenizer, monkeypatch):
    """Catches: a setting that never reaches the server; a key from elsewhere than its variable; too many at a time."""
    monkeypatch.setenv("MY_KEY", "secret")
    server = Server()
    sample(server, tmp_path, tokenizer, key_variable="MY_KEY", concurrency=2)
    body = server.bodies[0]
    assert {k: body[k] for k in ("model", "n", "temperature", "top_p", "max_tokens", "stop")} == {
        "model": "m", "n": 4, "temperature": 0.7, "top_p": 1.0, "max_tokens": 256, "stop": ["\nQ:"],
    }  # fmt: skip
    assert body["prompt"].startswith(FEW_SHOT) and "top_k" not in body
    assert set(server.keys) == {"Bearer secret"} and server.most <= 2
    assert len({body["seed"] for body in server.bodies}) == len(REQUESTS)


def test_a_chat_server_and_one_path_a_request(tmp_path, tokenizer):
    """Catches: chat answers read as completions; the server's count of tokens thrown away."""
    server = Server(api="chat")
    rows = sample(server, tmp_path, tokenizer, paths_per_request=1, paths=3)
    assert len(server.bodies) == 36 and all(row["num_tokens"] == 7 for row in rows)
    assert json.loads((tmp_path / "metrics/rounds-1-sample.jsonl").read_text())["requests"] == 36


def test_a_later_call_asks_for_what_is_missing(tmp_path, tokenizer):
    """Catches: paths paid for twice, or other ones, after an interruption."""
    server = Server(["", "", "", "bad"])
    with pytest.raises(UserError, match=r"status 400.*change what the message names"):
        sample(server, tmp_path, tokenizer, concurrency=1, paths_per_request=2)
    assert len(server.bodies) == 4
    again = Server()
    rows = sample(again, tmp_path, tokenizer, concurrency=1, paths_per_request=2)
    assert len(again.bodies) == 24 - 3
    seeds = [body["seed"] for body in server.bodies[:3] + again.bodies]
    assert len(set(seeds)) == 24
    assert rows == sample(Server(), tmp_path / "untouched", tokenizer, paths_per_request=2)


def test_stopping_early_asks_for_no_more(tmp_path, tokenizer):
    """Catches: a decided vote that is paid to its end; paths beyond those that decided it."""
    server = Server()
    rows = sample(server, tmp_path, tokenizer, paths=8, paths_per_request=2, enough=lambda paths: 3 if len(paths) > 3 else 0)
    assert len(server.bodies) == 24 and len(rows) == 36


def test_cost_is_that_of_all_answers(tmp_path, tokenizer):
    """Catches: a cost that forgets what was asked before an interruption, or counts cents for dollars."""
    sample(Server(), tmp_path, tokenizer, prompt_price=1e6, completion_price=2e6)
    row = json.loads((tmp_path / "metrics/rounds-1-sample.jsonl").read_text())
    assert row["dollars"] == 12 * (10 + 2 * 28) and row["prompt_tokens"] == 120


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["refused"], r"status 401.*set the environment variable OPENAI_API_KEY"),
        (["broken"] * 3, r"failed 3 times; last failure: status 500.*more retries"),
        (["garbled"] * 3, r"failed 3 times; last failure: .*JSON"),
        (["empty"] * 3, r"failed 3 times; last failure: Unreadable: a reply without choices"),
    ],
)
def test_a_server_that_will_not_answer_is_named(faults, said, tmp_path, tokenizer):
    """Catches: a stack trace, or an endless loop, where the user has to do something."""
    with pytest.raises(UserError, match=said):
        sample(Server(faults), tmp_path, tokenizer, requests=REQUESTS[:1], retries=2)


def test_nobody_there_is_an_error_with_the_address(tmp_path, tokenizer):
    """Catches: a crash when the server is not running."""
    server = Server()
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"127.0.0.1:\d+/v1/completions failed 2 times; last failure: ConnectionError"):
        sample(server, tmp_path, tokenizer, requests=REQUESTS[:1], retries=1)


def test_a_text_cut_behind_a_stop_string_has_stopped(tmp_path, tokenizer):
    """Catches: a whole answer that abstains as truncated, since the server went on behind the stop string to its limit."""
    choices = [
        {"text": " The answer is 5.\nQ: and", "finish_reason": "length"},
        {"text": " The answer", "finish_reason": "length"},
    ]
    server = Server([Canned(json.dumps({"choices": choices}).encode())])
    rows = sample(server, tmp_path, tokenizer, requests=REQUESTS[:1], paths=2)
    assert [(row["text"], row["finish"]) for row in rows] == [(" The answer is 5.", "stop"), (" The answer", "length")]


@pytest.mark.parametrize("usage", [{}, {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}])
def test_half_a_character_costs_no_path(usage, tmp_path, tokenizer):
    """Catches: a lone surrogate in a reply, for which a path is paid for at each start, or kept where nothing can read it."""
    server = Server([Canned(json.dumps({"choices": [{"text": " It is 2 \ud83d"}], **usage}).encode())])
    for _ in range(2):
        rows = sample(server, tmp_path, tokenizer, requests=REQUESTS[:1], paths=1)
        assert [row["text"] for row in rows] == [" It is 2 \ufffd"] and rows[0]["num_tokens"] >= 2
    assert len(server.bodies) == 1


@pytest.mark.parametrize("content", [b'{"rows": [', b"\xff", b"", b"[]", b'{"rows": 3, "usage": {}}', b'{"rows": []}'])
def test_a_stored_answer_that_cannot_be_read_is_named(content, tmp_path, tokenizer):
    """Catches: a stack trace, at each start, for a file of stored answers that a full disk or a power cut left broken."""
    file = tmp_path / "scratch" / f"{fingerprint('q0')}.json"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file.name} .*Delete it"):
        sample(Server(), tmp_path, tokenizer, requests=REQUESTS[:1])


def test_the_first_process_samples_from_a_server_and_all_of_them_on_the_mesh(tmp_path):
    """Catches: each of several processes that pays for all paths, or a check that refuses a server with several processes."""
    for engine, together in (("openai", False), ("mesh", True)):
        config = Config(sample=SampleConfig(engine=engine, endpoint=EndpointConfig(model="m")))
        parts = Parts(config, RunFolder(epath.Path(tmp_path)), config.model)
        assert parts.sample("rounds/1", 1, parts.checkpoint).on_mesh is together


def test_another_address_of_the_same_model_makes_no_path_stale(tmp_path):
    """Catches: a server that comes back on another port, or gets more time, for which all paths are paid for again."""

    def settings_of(**endpoint):
        config = Config(sample=SampleConfig(engine="openai", endpoint=EndpointConfig(**{"model": "m", **endpoint})))
        return traced(Parts(config, RunFolder(epath.Path(tmp_path)), config.model).sample_settings()), traced(config)

    moved = settings_of(url="http://localhost:9000/v1", timeout=9.0, retries=1, concurrency=2, key_variable="OTHER")
    assert settings_of() == moved
    for changes in ({"model": "n"}, {"api": "chat"}):
        assert all(one != other for one, other in zip(settings_of(), settings_of(**changes), strict=True))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sample": {"engine": "openai"}}, "needs --config.sample.endpoint.model"),
        ({"sample": {"endpoint": {"url": "localhost:8000"}}}, "is not an http address"),
        ({"rounds": 2, "sample": {"engine": "openai", "endpoint": {"model": "m"}}}, "the same in each round"),
    ],
)
def test_settings_that_cannot_work_are_refused(values, said):
    """Catches: a run that finds out after an hour."""
    with pytest.raises(UserError, match=said):
        build(Config, values)


ODD = [10**400, -(10**30), 2**63, math.nan, math.inf, -math.inf, "\ud83d", "\ude00\ud83d", "\x00", "\u2028", "\nQ:"]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6,
)  # fmt: skip


def fields(value, path=()):
    """The places of everything within a JSON value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from fields(inner, (*path, key))


def changed(value, path, junk):
    if not path:
        return junk
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], junk)
    return copy


@st.composite
def bodies(draw):
    """A right reply of which up to three parts are something else."""
    body = right_body(draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        body = changed(body, draw(st.sampled_from(list(fields(body)))), draw(JUNK))
    return body


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(body=bodies(), escaped=st.booleans())
def test_any_reply_is_rows_that_can_be_read_again_or_unreadable(sampler, body, escaped):
    """Catches: a reply that ends the run, or whose rows no JSON Lines file can hold."""
    content = json.dumps(body, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    try:
        reply = client._reply(client._json(content), 2)
    except client.Unreadable:
        return
    assert isinstance(reply, client.Reply) and 1 <= len(reply.choices) <= 2
    assert all(0 <= count < 2**63 for count in (reply.prompt_tokens, reply.completion_tokens))
    rows = [sampler._row(REQUESTS[0], number, choice) for number, choice in enumerate(reply.choices)]
    assert all(math.isfinite(each.get("logprob", 0.0)) for each in rows)
    write_jsonl(sampler._job.output, rows)
    assert list(read_jsonl(sampler._job.output)) == rows
