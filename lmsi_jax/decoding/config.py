"""Settings of sampling: what is sampled, how it is batched, and the optional server that samples."""

import dataclasses
import re
from typing import Literal

from lmsi_jax.core.settings import require, require_at_least, require_positive, untraced
from lmsi_jax.voting.config import AdaptiveConfig


@dataclasses.dataclass(frozen=True)
class Truncation:
    """How a token's distribution is truncated before sampling; decoding/sampling.py implements it."""

    top_k: int = 0  # keep this many of the likeliest tokens; 0 = the full vocabulary
    top_p: float = 1.0  # keep the smallest set of likeliest tokens whose probability reaches this


@dataclasses.dataclass(frozen=True)
class Sampling(Truncation):
    """What is sampled for each question (Huang et al. 2022, section 4: m=32, T=0.7, 256 tokens)."""

    paths: int = 32  # paths per question (m)
    temperature: float = 0.7  # of the base model
    max_tokens: int = 256  # per path
    stops: tuple[str, ...] = ("\nQ:",)  # a path ends before the first of these
    keep: tuple[str, ...] = ()  # extra fields in paths.jsonl: "tokens", "logprobs" (one for each token)
    weights: Literal["stored", "int8"] = "stored"  # int8: quantised for decoding, a quarter of float32; see model/quantize.py

    def greedy(self, max_tokens: int) -> "Sampling":
        """Return the settings for greedy decoding: one path per question, temperature 0, at most `max_tokens` tokens."""
        return Sampling(paths=1, temperature=0.0, max_tokens=max_tokens, stops=self.stops, weights=self.weights)


@dataclasses.dataclass(frozen=True)
class Batching:
    """How paths share the device. A path's tokens do not depend on it."""

    lanes: int = untraced(16)  # questions in flight; 0 = as many as fit into `memory`
    slots: int = untraced(8)  # paths in flight per lane
    memory: float = untraced(0.0)  # GiB per device that decoding may use if lanes = 0; 0 = 90% of the free memory
    gather: bool = untraced(True)  # replicate weights over mesh.fsdp while decoding; False gathers them at every step
    sync_every: int = untraced(16)  # decode steps between two synchronisations with the host
    questions_per_shard: int = untraced(64)  # questions in one output shard: the unit of resume
    profile: tuple[int, int] = untraced((0, 0))  # first and last question of an XProf trace; (0, 0) = none

    def for_greedy(self, shards: int, paths: int) -> "Batching":
        """Return the batching for one path per question that keeps the rows in flight and the paths per output shard.

        `paths`: the paths per question of this batching. `shards`: shards of the batch axis, over which lanes are divided.
        """
        rows = self.lanes * min(self.slots, paths)
        lanes = max(1, rows // shards) * shards if rows else 0
        return dataclasses.replace(self, lanes=lanes, slots=1, questions_per_shard=self.questions_per_shard * paths)


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """An OpenAI-compatible server to sample from, such as vLLM, SGLang or a hosted API; see decoding/endpoint.py."""

    url: str = untraced("http://localhost:8000/v1")  # may have a login, http://USER:PASSWORD@HOST/v1; see core/secrets.py
    model: str = ""  # the model's name on the server
    api: Literal["completions", "chat"] = "completions"  # chat: the prompt is one user message
    continues: bool = False  # chat: the server goes on with a begun answer (continue_final_message of vLLM and SGLang)
    key_variable: str = untraced("OPENAI_API_KEY")  # the environment variable with the API key; "" = no key
    concurrency: int = untraced(16)  # concurrent requests
    paths_per_request: int = 0  # 0 = all paths of a question in one request
    retries: int = untraced(6)  # of a failed request
    timeout: float = untraced(300.0)  # seconds without a byte from the server
    prompt_price: float = untraced(0.0)  # dollars per million tokens, for the cost in the report
    completion_price: float = untraced(0.0)

    def check(self, path: str) -> None:
        require(
            bool(re.fullmatch(r"https?://(\[[\da-f:.]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?(/[^\s?#@]*)?", self.url, re.IGNORECASE)),
            f"{path}url, not shown as it may contain a secret, is not an http address such as http://localhost:8000/v1, "
            "without '?' and '#'. A login goes before the host, as in http://USER:PASSWORD@HOST/v1, with %40 for '@', "
            "%2F for '/', %3F for '?' and %23 for '#'. A key goes into the environment variable OPENAI_API_KEY.",
        )
        require(
            bool(re.fullmatch("[A-Z_][A-Z0-9_]*|", self.key_variable)),
            f"{path}key_variable, not shown as it may be a key, is not the name of an environment variable (capital "
            "letters, digits and '_'). Put the key into an environment variable and set key_variable to its name.",
        )
        require_at_least(1, self, path, "concurrency")
        require_at_least(0, self, path, "paths_per_request", "retries")
        require_positive(self, path, "timeout")


@dataclasses.dataclass(frozen=True)
class SampleConfig(Sampling, Batching):
    """Multi-path decoding, on this process's mesh or by a server."""

    engine: Literal["mesh", "openai"] = "mesh"  # openai: the server at `endpoint` samples, our model trains on it
    temperature_after: float = 1.2  # of a model that was fine-tuned on its own paths
    adaptive: AdaptiveConfig = AdaptiveConfig()
    endpoint: EndpointConfig = EndpointConfig()

    def check(self, path: str) -> None:
        require(
            self.paths >= 1,
            f"{path}paths={self.paths}: a vote needs at least one path for each question; the paper uses 32.",
        )
        for name in ("temperature", "temperature_after"):
            value = getattr(self, name)
            require(value >= 0, f"{path}{name}={value} is negative; 0 is greedy decoding, 0.7 the paper's value.")
        require(
            self.engine == "mesh" or bool(self.endpoint.model),
            f"{path}engine='openai' needs --config.{path}endpoint.model, the model's name on the server.",
        )
        require(self.top_k >= 0, f"{path}top_k={self.top_k} is negative; 0 keeps the full vocabulary.")
        require(0 < self.top_p <= 1, f"{path}top_p={self.top_p} is outside (0, 1]; 1 keeps the full vocabulary.")
        unknown = sorted(set(self.keep) - {"tokens", "logprobs"})
        require(not unknown, f"{path}keep={self.keep} may name tokens and logprobs; unknown: {', '.join(unknown)}.")
        require(
            not self.keep or self.engine == "mesh",
            f"{path}keep={self.keep} requires {path}engine='mesh': a server's paths have no token ids.",
        )
        require(all(self.stops), f"{path}stops={self.stops} has an empty string, which would end every path at once.")
        for name in ("lanes", "memory"):
            require(getattr(self, name) >= 0, f"{path}{name}={getattr(self, name)} is negative; 0 chooses it automatically.")
        require_at_least(1, self, path, "max_tokens", "slots", "sync_every", "questions_per_shard")
