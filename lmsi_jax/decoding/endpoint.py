"""Client of an OpenAI-compatible server (vLLM, SGLang, a hosted API) that samples paths instead of our engine."""

import dataclasses
import json
import math
import os
import threading
from typing import Any, TypeGuard

import requests

from lmsi_jax.core import secrets
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.text import clean_text
from lmsi_jax.decoding.config import EndpointConfig, Sampling

BUSY = (408, 409, 425, 429)  # statuses that are retried, as is every status from 500 on
LONGEST_WAIT = 60.0  # seconds between two attempts
LARGEST = 2.0**53  # largest valid token count or |log-probability|; integers up to here are exact as floats


@dataclasses.dataclass(frozen=True)
class Choice:
    """One sampled text. `num_tokens` and `logprob` are None if the server did not return them."""

    text: str
    finish: str  # "stop" or "length"
    num_tokens: int | None
    logprob: float | None  # sum over the tokens, in nats


@dataclasses.dataclass(frozen=True)
class Reply:
    """The samples of one request, and the token counts that the server reports (0 if it reports none)."""

    choices: list[Choice]
    prompt_tokens: int
    completion_tokens: int


class Unreadable(Exception):
    """A reply that has no valid samples; retrying the request may help."""


class Endpoint:
    """A client of one server. It is thread-safe."""

    def __init__(self, config: EndpointConfig, sampling: Sampling):
        self._config, self._sampling = config, sampling
        kind = "chat/completions" if config.api == "chat" else "completions"
        address = secrets.strip(config.url)
        self.url = f"{address.rstrip('/')}/{kind}"
        self._authorization = _authorization(address, config.key_variable)

    def ask(self, prompt: str, begun: str, paths: int, seed: int, stop: threading.Event) -> Reply | None:
        """Request `paths` samples of a prompt and return at least one; return None when `stop` is set between two attempts.

        `begun` is the beginning of the answer, with which the samples go on.

        A request that fails (busy server, timeout, lost connection, invalid reply) is retried. The wait doubles each time,
        unless the server sets it (Retry-After). Raises UserError when the server refuses the request or all attempts fail.
        """
        body, backoff, wait, cause = self._body(prompt, begun, paths, seed), 1.0, 0.0, ""
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
            f"{self.url} failed {self._config.retries + 1} times; last failure: {cause}. The paths received so far are "
            f"kept. Run the same command again to resume, with a longer --config.sample.endpoint.timeout, fewer concurrent "
            f"requests (--config.sample.endpoint.concurrency) or more retries (--config.sample.endpoint.retries)."
        )

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the Authorization header. Without an `auth` callback, requests would read a password from ~/.netrc."""
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request

    def _body(self, prompt: str, begun: str, paths: int, seed: int) -> dict[str, Any]:
        s, text = self._sampling, dict[str, Any](prompt=prompt + begun)
        if self._config.api == "chat":
            text = {"messages": [{"role": "user", "content": prompt}]}
            if begun:  # the names that vLLM and SGLang have for it
                text["messages"].append({"role": "assistant", "content": begun.lstrip()})
                text |= {"continue_final_message": True, "add_generation_prompt": False}
        return {
            "model": self._config.model,
            **text,
            "n": paths,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "max_tokens": s.max_tokens,
            "seed": seed,
            **({"stop": list(s.stops)} if s.stops else {}),
            **({"top_k": s.top_k} if s.top_k else {}),
        }

    def _refusal(self, status: int, cause: str) -> UserError:
        key = (
            f"set the environment variable {self._config.key_variable} to a valid key, or put a valid login into the URL "
            f"(http://USER:PASSWORD@HOST/v1)"
        )
        remedies = {401: key, 403: key, 404: "check --config.sample.endpoint.url (it ends in /v1), .api and .model"}
        remedy = remedies.get(status, "change what the message names")
        return UserError(f"{self.url} refused a request for model '{self._config.model}' with {cause}; {remedy}.")


def _authorization(address: str, variable: str) -> str:
    """Return the Authorization header for the key in an environment variable or the login in the address, "" without either."""
    key, login = os.environ.get(variable, "").strip(), secrets.authorization(address)
    if key and login:
        raise UserError(
            f"sample.endpoint.url has a login, and the environment variable {variable} has a key; a request can use only one. "
            f"Remove the login from the URL, or set --config.sample.endpoint.key_variable= to nothing."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"The environment variable {variable} does not contain a valid key: there is a space, a line break or a "
            f"non-ASCII character in it. Set it to the key that the server accepts, without 'Bearer'."
        )
    secrets.register(key)
    return f"Bearer {key}" if key else login


def _shown(response: requests.Response) -> str:
    """Return the first 300 characters of a reply, quoted, with secrets redacted."""
    return repr(secrets.redact(response.content.decode("utf-8", "replace"))[:300])


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # a ValueError also for a number of too many digits or invalid UTF-8
        raise Unreadable(f"a reply that is not JSON ({error})") from error


def _reply(body: Any, paths: int) -> Reply:
    """Parse the first `paths` samples of a reply. Raises Unreadable without choices, or on a text that is no string."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Unreadable("a reply without choices")
    usage = body.get("usage")
    prompt_tokens, completion_tokens = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    num_tokens = completion_tokens if len(choices) == 1 and completion_tokens else None
    return Reply([_choice(choice, num_tokens) for choice in choices[:paths]], prompt_tokens, completion_tokens)


def _choice(choice: dict[str, Any], num_tokens: int | None) -> Choice:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise Unreadable(f"a reply whose text is a {type(text).__name__}")
    text = clean_text(text or "")
    finish = "length" if choice.get("finish_reason") == "length" else "stop"
    logprobs = _logprobs(choice.get("logprobs"))
    if logprobs is None or (text and not logprobs):
        return Choice(text, finish, num_tokens, None)
    return Choice(text, finish, len(logprobs), math.fsum(logprobs))


def _logprobs(field: Any) -> list[float] | None:
    """Return the log-probability of each token of a choice, None if any of them is missing or not a number."""
    if not isinstance(field, dict):
        return None
    values = field.get("token_logprobs")
    if isinstance(content := field.get("content"), list):  # chat API
        values = [token.get("logprob") if isinstance(token, dict) else None for token in content]
    if not isinstance(values, list) or not all(map(_is_number, values)):
        return None
    return [float(value) for value in values]


def _count(usage: Any, name: str) -> int:
    """Return a token count of the reply, 0 if it is missing or invalid."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return int(value) if _is_number(value) and value >= 0 else 0


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a JSON value is a finite number of at most LARGEST; true and false are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _seconds(retry_after: str | None, wait: float) -> float:
    """Return a Retry-After header in seconds, or `wait` if it is missing, a date or invalid."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return wait
    return seconds if seconds >= 0 else wait  # NaN >= 0 is False
