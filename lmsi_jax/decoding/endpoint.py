"""Paths from an OpenAI-compatible server (vLLM, SGLang, a hosted API), in the place of the engine here."""

import dataclasses
import os
import time
from typing import Any

import requests

from lmsi_jax.core.config import EndpointConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.text import clean_text
from lmsi_jax.decoding.scheduler import Decoding

BUSY = (408, 409, 425, 429)  # and all from 500 on: the same request may do better later
LONGEST_WAIT = 60.0  # seconds between two tries


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
        self.url = f"{config.url.rstrip('/')}/{kind}"
        key = os.environ.get(config.key_variable, "")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, prompt: str, paths: int, seed: int) -> Reply:
        """At least one and at most `paths` samples of a prompt.

        A server that is busy, slow, broken or cut off is asked again, with twice the wait each time or as it says itself.
        Raises UserError when it refuses, or fails every time.
        """
        body = self._body(prompt, paths, seed)
        wait, cause = 1.0, ""
        for attempt in range(self._config.retries + 1):
            if attempt:
                time.sleep(min(wait, LONGEST_WAIT))
                wait *= 2
            try:
                response = requests.post(self.url, json=body, headers=self._headers, timeout=self._config.timeout)
                if response.ok:
                    return _reply(response.json(), paths)
            except (requests.RequestException, Unreadable) as error:  # a body that is no JSON is a RequestException
                cause = f"{type(error).__name__}: {error}"
                continue
            cause = f"status {response.status_code}: {response.text[:300]!r}"
            if response.status_code not in BUSY and response.status_code < 500:
                raise self._refusal(response.status_code, cause)
            wait = _seconds(response.headers.get("Retry-After"), wait)
        raise UserError(
            f"{self.url} failed {self._config.retries + 1} times; at last {cause}. The paths that came are kept: start the "
            f"same command again to go on, with a longer --config.sample.endpoint.timeout, fewer requests at a time "
            f"(--config.sample.endpoint.concurrency) or more retries."
        )

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
        remedy = {
            401: f"set the environment variable {self._config.key_variable} to a key that it takes",
            403: f"set the environment variable {self._config.key_variable} to a key that it takes",
            404: "check --config.sample.endpoint.url (it ends in /v1), .api and .model",
        }.get(status, "change what the message names")
        return UserError(f"{self.url} refused a request for model '{self._config.model}' with {cause}; {remedy}.")


def _reply(body: Any, paths: int) -> Reply:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Unreadable(f"an answer without choices, {str(body)[:200]!r}")
    usage = body.get("usage") or {}
    completion = int(usage.get("completion_tokens") or 0)
    alone = completion if len(choices) == 1 and completion else None
    found = [_choice(choice, alone) for choice in choices[:paths]]
    return Reply(found, int(usage.get("prompt_tokens") or 0), completion)


def _choice(choice: dict[str, Any], num_tokens: int | None) -> Choice:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise Unreadable(f"a text that is none, {text!r:.100}")
    text = clean_text(text or "")
    given = choice.get("logprobs")
    logprobs = given if isinstance(given, dict) else {}
    found = [token.get("logprob") for token in logprobs.get("content") or []] or logprobs.get("token_logprobs")
    if found and all(isinstance(value, int | float) for value in found):
        return Choice(text, _finish(choice), len(found), float(sum(found)))
    return Choice(text, _finish(choice), num_tokens, None)


def _finish(choice: dict[str, Any]) -> str:
    return "length" if choice.get("finish_reason") == "length" else "stop"


def _seconds(retry_after: str | None, wait: float) -> float:
    """A Retry-After header in seconds; one that names a date, or none, leaves the wait as it is."""
    try:
        return max(float(retry_after or ""), 0.0)
    except ValueError:
        return wait
