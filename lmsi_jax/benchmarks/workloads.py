"""Workloads of the decoding benchmarks: model shapes, lengths, and prompts of random ids."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from lmsi_jax.decoding.engine import Limits
from lmsi_jax.decoding.scheduler import Request
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.presets import preset

PATHS, NEW_TOKENS = 32, 128


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model, the lengths of its prompts in tokens, and the number of questions."""

    model: ModelConfig
    task: int  # length of the few-shot prompt
    question: int  # length of a question
    questions: int  # number of questions in a run


WORKLOADS = {
    "S": Workload(
        ModelConfig(vocab=512, width=256, layers=6, heads=4, kv_heads=4, head_width=64, mlp=1024),
        task=192,
        question=64,
        questions=8,
    ),
    "M": Workload(
        ModelConfig(vocab=32_000, width=768, layers=12, heads=12, kv_heads=12, head_width=64, mlp=2048),
        task=448,
        question=64,
        questions=4,
    ),
    "L": Workload(
        dataclasses.replace(preset("qwen2.5-0.5b"), param_dtype="bfloat16", dtype="bfloat16"),
        task=896,
        question=128,
        questions=32,
    ),
}
ON_CPU = ("S", "M")  # the workloads that a CPU computes in minutes


class Ids:
    """A tokenizer for texts of space-separated token ids, without end tokens."""

    bos = eos = -1
    ends: tuple[int, ...] = ()
    control_names: tuple[str, ...] = ()

    def __init__(self, vocab: int):
        self.vocab, self.token_bytes = vocab, [b"x"] * vocab

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    start = encode

    def encode_completion(self, text: str, prompt: Sequence[int]) -> list[int]:
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(map(str, ids))


def limits(workload: Workload, lanes: int, slots: int, max_tokens: int = NEW_TOKENS) -> Limits:
    """Return the shapes of decoding a workload's questions."""
    return Limits(lanes, slots, PATHS, max_tokens, workload.question)


def prompts(workload: Workload, questions: int, seed: int) -> tuple[str, Sequence[Request]]:
    """Return a random few-shot prompt and random questions of the workload's lengths, as texts for `Ids`."""
    rng = np.random.default_rng(seed)
    draw = lambda count: " ".join(str(id) for id in rng.integers(0, workload.model.vocab - 1, (count,)))  # noqa: E731
    return draw(workload.task), [Request(str(i), draw(workload.question)) for i in range(questions)]
