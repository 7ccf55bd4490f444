"""Number of floating-point operations of the transformer's matrix products."""

from collections.abc import Sequence

from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig


def training_flops(
    config: ModelConfig, rows: int, length: int, prompts: int = 0, prompt_length: int = 0, *, trains_weights: bool = True
) -> float:
    """Return the floating-point operations of a training step on `rows` of `length` tokens.

    Each row attends to itself and to one of `prompts` shared prompts of `prompt_length` tokens. The backward pass counts twice
    the forward pass; with frozen weights (`trains_weights=False`) it counts their products only once. The formula is that of
    appendix B of Chowdhery et al. 2022 (arXiv 2204.02311), plus the product with the unembedding.
    """
    n, t, p, s = rows, length, prompts, prompt_length
    dense, table, attention = _operands(config)
    weights = 2 * dense * (n * t + p * s) + 2 * table * n * t
    read = attention * (n * t * (t + s) + p * s * s)
    return float((3 if trains_weights else 2) * weights + 3 * read)


def decoding_flops(config: ModelConfig, prompt: int, question: int, paths: Sequence[int]) -> float:
    """Return the floating-point operations of one question: of its `question` tokens, and of paths of these lengths.

    All attend to a shared prompt of `prompt` tokens, whose own operations are `decoding_flops(config, 0, prompt, ())`.
    """
    dense, table, attention = _operands(config)
    operations = 2.0 * dense * question + attention * question * (prompt + question / 2)
    for tokens in paths:
        operations += 2 * (dense + table) * tokens + attention * tokens * (prompt + question + tokens / 2)
    return operations


def _operands(config: ModelConfig) -> tuple[int, int, int]:
    """Return (parameters of the layers, parameters of the unembedding, operations of attention per pair of tokens).

    Of the experts only those count that a token uses.
    """
    table = config.vocab * config.width
    dense = transformer.count_active_params(config) - table * (1 if config.tied_embedding else 2)
    return dense, table, 4 * config.layers * config.heads * config.head_width
