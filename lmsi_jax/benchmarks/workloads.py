"""What the decoding benchmarks decode: model shapes, lengths, and prompts of random ids."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from lmsi_jax.core.config import ModelConfig
from lmsi_jax.decoding.scheduler import Request

PATHS, NEW_TOKENS = 32, 128


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model and the lengths of its prompts, in tokens."""

    model: ModelConfig
    task: int
    question: int
    questions: int


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
}


class Ids:
    """A tokenizer whose texts are ids in words, and whose texts never end."""

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


def prompts(workload: Workload, questions: int, seed: int) -> tuple[str, Sequence[Request]]:
    """A few-shot prompt and questions of the workload's lengths, as texts for `Ids`."""
    rng = np.random.default_rng(seed)
    draw = lambda count: " ".join(str(id) for id in rng.integers(0, workload.model.vocab - 1, (count,)))  # noqa: E731
    return draw(workload.task), [Request(str(i), draw(workload.question)) for i in range(questions)]
