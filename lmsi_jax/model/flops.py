"""Number of floating-point operations of the transformer's matrix products."""

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
    table = config.vocab * config.width
    dense = transformer.count_params(config) - table * (1 if config.tied_embedding else 2)
    attention = 4 * config.layers * config.heads * config.head_width
    weights = 2 * dense * (n * t + p * s) + 2 * table * n * t
    read = attention * (n * t * (t + s) + p * s * s)
    return float((3 if trains_weights else 2) * weights + 3 * read)
