"""What a server may send in place of a right reply."""

import json
import math
import threading

import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.decoding import endpoint
from lmsi_jax.decoding.config import EndpointConfig, Sampling
from lmsi_jax.decoding.endpoint import Endpoint, Reply, Unreadable
from tests.server import Canned, Server, right_body

SAMPLING = Sampling(paths=2, temperature=0.7, max_tokens=8)


def parse(value):
    return endpoint._reply(value, 2)


def ask(faults, retries=3, stop=None, **options):
    server = Server(faults)
    client = Endpoint(EndpointConfig(url=server.url, model="m", retries=retries, timeout=5.0, **options), SAMPLING)
    return client.ask("Q: 1 + 1?\nA:", "", 2, 0, stop or threading.Event()), server


class Pauses(threading.Event):
    """Writes down how long it is waited for, and does not wait."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return False


@pytest.mark.parametrize(
    ("header", "first"),
    [("nan", 1), ("inf", 60), ("-5", 1), ("Wed, 21 Oct 2026 07:28:00 GMT", 1), ("1e9", 60), ("0", 0), ("3", 3), ("", 1)],
)
def test_when_to_try_again(header, first):
    """Catches: a wait that is no number and ends the run, one of years, and a 0 that makes all later waits 0."""
    busy, broken = Canned(status=429, headers={"Retry-After": header}), Canned(status=500)
    stop = Pauses()
    reply, _ = ask([busy, broken, broken], stop=stop)
    assert stop.seconds == [first, 2, 4] and len(reply.choices) == 2


def test_a_wait_ends_when_the_run_stops():
    """Catches: SIGTERM that waits for all tries of a request."""
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    reply, server = ask([Canned(status=503, headers={"Retry-After": "30"})] * 9, stop=stop)
    assert reply is None and len(server.bodies) == 1


@pytest.mark.parametrize("usage", [[1], "many", 7, True, None, {"prompt_tokens": [3], "completion_tokens": {}}])
@pytest.mark.parametrize("chat", [False, True])
def test_usage_of_another_type_counts_nothing(usage, chat):
    """Catches: a count of tokens that is no count and ends the run, though the texts are there."""
    assert parse({**right_body(chat), "usage": usage}) == Reply(parse(right_body(chat)).choices, 0, 0)


@pytest.mark.parametrize(
    ("count", "tokens"), [(4, 4), (4.0, 4), (-4, 0), (True, 0), ("4", 0), (None, 0), (math.nan, 0), (math.inf, 0), (10**400, 0)]
)
def test_a_count_of_tokens_is_a_whole_number_or_nothing(count, tokens):
    """Catches: a negative, endless or huge count in the sums that dollars are computed from."""
    reply = parse({**right_body(False), "usage": {"prompt_tokens": count, "completion_tokens": count}})
    assert (reply.prompt_tokens, reply.completion_tokens) == (tokens, tokens)


@pytest.mark.parametrize(
    "values", ["abc", [["a"]], ["a", "b"], [None, -0.5], [math.nan, -1.0], [-math.inf], [True], [10**400], [-1e308] * 3, 5, {}]
)
@pytest.mark.parametrize("chat", [False, True])
def test_log_probabilities_of_another_type_are_none(values, chat):
    """Catches: log-probabilities that are none, which end the run or are summed to NaN."""
    tokens = [{"logprob": value} for value in values] if isinstance(values, list) and chat else values
    body = right_body(chat)
    for choice in body["choices"]:
        choice["logprobs"] = {"content" if chat else "token_logprobs": tokens}
    assert [choice.logprob for choice in parse(body).choices] == [None, None]
    for choice in body["choices"]:
        choice["logprobs"] = values
    assert [choice.logprob for choice in parse(body).choices] == [None, None]


@pytest.mark.parametrize("chat", [False, True])
def test_a_right_reply(chat):
    """Catches: a text, a log-probability or a number of tokens that is lost or wrong."""
    reply = parse(right_body(chat))
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 4)
    assert [(c.text, c.finish, c.num_tokens, c.logprob) for c in reply.choices] == [(" 4.", "stop", 2, -0.75)] * 2


@pytest.mark.parametrize(
    "choices", [None, [], {}, "ab", 3, [[]], ["text"], [None], [{"text": 3}], [{"message": {"content": []}}]], ids=str
)
def test_choices_of_another_type_are_asked_for_again(choices):
    """Catches: a stack trace in place of another try."""
    with pytest.raises(Unreadable):
        parse({"choices": choices})
    reply, _ = ask([Canned(json.dumps({"choices": choices}).encode())], retries=1, stop=Pauses())
    assert len(reply.choices) == 2


@pytest.mark.parametrize("reason", [None, [], {}, 3, True, "content_filter", "stop"])
def test_a_finish_reason_of_another_type_is_a_stop(reason):
    """Catches: a reason to finish that ends the run."""
    body = right_body(False)
    body["choices"][0]["finish_reason"] = reason
    assert parse(body).choices[0].finish == "stop"


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000 + b"]" * 100_000, b'{"choices": ' * 100_000, b"\xff\xfe\xfd", b"7" * 5000, b"x" * 2**20, b"", b"null"],
    ids=["nested", "open", "binary", "digits", "megabyte", "nothing", "null"],
)
def test_what_is_no_reply_is_asked_for_again_and_then_named_briefly(body):
    """Catches: a body that ends the run with a stack trace, or fills the log with all of it."""
    assert len(ask([Canned(body)], retries=1, stop=Pauses())[0].choices) == 2
    with pytest.raises(UserError, match="failed 2 times; last failure: Unreadable") as error:
        ask([Canned(body)] * 2, retries=1, stop=Pauses())
    assert len(str(error.value)) < 1000


def test_a_reply_of_a_megabyte_is_read():
    """Catches: a long text that is cut or refused."""
    body = {"choices": [{"text": "x" * 2**20}]}
    reply, _ = ask([Canned(json.dumps(body).encode())])
    assert [len(choice.text) for choice in reply.choices] == [2**20]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_begun_answer_is_one_that_the_server_goes_on_with(api):
    """Catches: steps that a chat server reads as a part of the question, or a flag that others would refuse."""
    server = Server(api=api)
    client = Endpoint(EndpointConfig(url=server.url, model="m", api=api, continues=True), SAMPLING)
    for begun in ("", " 1 + 1 = 2."):
        client.ask("Q: 1 + 1?\nA:", begun, 2, 0, threading.Event())
    whole, begun = server.bodies
    if api == "completions":
        assert (whole["prompt"], begun["prompt"]) == ("Q: 1 + 1?\nA:", "Q: 1 + 1?\nA: 1 + 1 = 2.")
    else:
        assert whole["messages"] == begun["messages"][:1] and "continue_final_message" not in whole
        assert begun["messages"][1] == {"role": "assistant", "content": "1 + 1 = 2."}
        assert begun["continue_final_message"] is True and begun["add_generation_prompt"] is False
