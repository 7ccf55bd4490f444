"""Paths from an OpenAI-compatible server (vLLM, SGLang, a hosted API), in the place of the engine here."""

import dataclasses
import json
import math
import os
import threading
from typing import Any, TypeGuard

import requests

from lmsi_jax.core import secrets
from lmsi_jax.core.config import EndpointConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.text import clean_text
from lmsi_jax.decoding.scheduler import Decoding

BUSY = (408, 409, 425, 429)  # and all from 500 on: the same request may do better later
LONGEST_WAIT = 60.0  # seconds between two tries
LARGEST = 2.0**53  # that a number of tokens or a log-probability can be; whole numbers up to here are exact as floats


@dataclasses.dataclass(frozen=True)
class Choice:
    """One sampled text. Tokens and log-probability are there where the server gave them."""

    text: str
    finish: str  # "stop" or "length"
    num_tokens: int | None
    logprob: float | None


@dataclasses.dataclass(frozen=True)
class Reply:
    """The samples of one request, and what the server counts for it."""

    choices: list[Choice]
    prompt_tokens: int
    completion_tokens: int


class Unreadable(Exception):
    """An answer that is not what was asked for; asking again may help."""


class Endpoint:
    """A server and how to ask it. Threads may share it."""

    def __init__(self, config: EndpointConfig, decoding: Decoding):
        self._config, self._decoding = config, decoding
        kind = "chat/completions" if config.api == "chat" else "completions"
        address = secrets.take(config.url)
        self.url = f"{address.rstrip('/')}/{kind}"
        self._authorization = _authorization(address, config.key_variable)

    def ask(self, prompt: str, paths: int, seed: int, stop: threading.Event) -> Reply | None:
        """At least one and at most `paths` samples of a prompt; None when `stop` is set before another try.

        A server that is busy, slow, broken or cut off is asked again, with twice the wait each time or as it says itself.
        Raises UserError when it refuses, or fails every time.
        """
        body, backoff, wait, cause = self._body(prompt, paths, seed), 1.0, 0.0, ""
        for attempt in range(self._config.retries + 1):
            if attempt and stop.wait(min(wait, LONGEST_WAIT)):
                return None
            wait, backoff = backoff, 2 * backoff
            try:
                response = requests.post(self.url, json=body, auth=self._authorize, timeout=self._config.timeout)
                if response.ok:
                    return _reply(_json(response.content), paths)
            except requests.RequestException as error:
                cause = secrets.redact(f"{type(error).__name__}: {error}")[:500]
                continue
            except Unreadable as error:
                cause = f"Unreadable: {error}, {_shown(response)}"
                continue
            cause = f"status {response.status_code}: {_shown(response)}"
            if response.status_code not in BUSY and response.status_code < 500:
                raise self._refusal(response.status_code, cause)
            wait = _seconds(response.headers.get("Retry-After"), wait)
        raise UserError(
            f"{self.url} failed {self._config.retries + 1} times; at last {cause}. The paths that came are kept: start the "
            f"same command again to go on, with a longer --config.sample.endpoint.timeout, fewer requests at a time "
            f"(--config.sample.endpoint.concurrency) or more retries."
        )

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The `auth` of a request. Without one, requests would look for a password in ~/.netrc."""
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request

    def _body(self, prompt: str, paths: int, seed: int) -> dict[str, Any]:
        d = self._decoding
        asked = {"messages": [{"role": "user", "content": prompt}]} if self._config.api == "chat" else {"prompt": prompt}
        return {
            "model": self._config.model,
            **asked,
            "n": paths,
            "temperature": d.temperature,
            "top_p": d.top_p,
            "max_tokens": d.max_tokens,
            "seed": seed,
            **({"stop": list(d.stops)} if d.stops else {}),
            **({"top_k": d.top_k} if d.top_k else {}),
        }

    def _refusal(self, status: int, cause: str) -> UserError:
        key = (
            f"set the environment variable {self._config.key_variable} to a key that it takes, or write a login that it takes "
            f"into the URL (http://USER:PASSWORD@HOST/v1)"
        )
        remedy = {
            401: key,
            403: key,
            404: "check --config.sample.endpoint.url (it ends in /v1), .api and .model",
        }.get(status, "change what the message names")
        return UserError(f"{self.url} refused a request for model '{self._config.model}' with {cause}; {remedy}.")


def _authorization(address: str, variable: str) -> str:
    """The Authorization header by the key in an environment variable, or by the login that the address had; else ""."""
    key, login = os.environ.get(variable, "").strip(), secrets.authorization(address)
    if key and login:
        raise UserError(
            f"sample.endpoint.url has a login, and the environment variable {variable} a key; a request can have one of them. "
            f"Take the login out of the URL, or set --config.sample.endpoint.key_variable= to nothing."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"The environment variable {variable} does not hold a key alone: there is a space, a line break or a character "
            f"beyond ASCII within it. Set it to the key that the server takes, without 'Bearer'."
        )
    secrets.keep(key)
    return f"Bearer {key}" if key else login


def _shown(response: requests.Response) -> str:
    """How a reply begins, without a secret that it repeats."""
    return repr(secrets.redact(response.content.decode("utf-8", "replace"))[:300])


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # a ValueError too: a number of too many digits, or no UTF-8
        raise Unreadable(f"a reply that is not JSON ({error})") from error


def _reply(body: Any, paths: int) -> Reply:
    """The first `paths` samples of a reply's JSON, without what cannot be read of tokens. Raises Unreadable without a text."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Unreadable("an answer without choices")
    usage = body.get("usage")
    prompt_tokens, completion_tokens = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    alone = completion_tokens if len(choices) == 1 and completion_tokens else None
    return Reply([_choice(choice, alone) for choice in choices[:paths]], prompt_tokens, completion_tokens)


def _choice(choice: dict[str, Any], num_tokens: int | None) -> Choice:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise Unreadable(f"a text that is a {type(text).__name__}")
    text = clean_text(text or "")
    finish = "length" if choice.get("finish_reason") == "length" else "stop"
    logprobs = _logprobs(choice.get("logprobs"))
    if logprobs is None or (text and not logprobs):
        return Choice(text, finish, num_tokens, None)
    return Choice(text, finish, len(logprobs), math.fsum(logprobs))


def _logprobs(given: Any) -> list[float] | None:
    """The log-probability of each token of a choice; None where one of them is not a number."""
    if not isinstance(given, dict):
        return None
    values = given.get("token_logprobs")
    if isinstance(content := given.get("content"), list):  # of chat
        values = [token.get("logprob") if isinstance(token, dict) else None for token in content]
    if not isinstance(values, list) or not all(map(_is_number, values)):
        return None
    return [float(value) for value in values]


def _count(usage: Any, name: str) -> int:
    """A number of tokens."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return int(value) if _is_number(value) and value >= 0 else 0


def _is_number(value: Any) -> TypeGuard[int | float]:
    """A number of JSON that can be added up: not true or false, not NaN or Infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _seconds(retry_after: str | None, wait: float) -> float:
    """A Retry-After header in seconds; one that names a date, or none, leaves the wait as it is."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return wait
    return seconds if seconds >= 0 else wait  # NaN is not
