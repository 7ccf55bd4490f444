"""Published architectures by name."""

from typing import Any

from lmsi_jax.core.errors import unknown
from lmsi_jax.model.config import ModelConfig, RopeScaling


def _palm(layers: int, heads: int, width: int) -> ModelConfig:
    """PaLM (Chowdhery et al. 2022, arXiv 2204.02311, table 1), the model of the LMSI paper."""
    return ModelConfig(
        vocab=256_000, width=width, layers=layers, heads=heads, kv_heads=1, head_width=256, mlp=4 * width, context=2048,
        norm="layer", parallel=True, scaled_embedding=True,
    )  # fmt: skip


def _llama(vocab: int, width: int, layers: int, heads: int, kv_heads: int, mlp: int, context: int, **more: Any) -> ModelConfig:
    settings: dict[str, Any] = {"head_width": width // heads, "norm_epsilon": 1e-5, "tied_embedding": False, **more}
    return ModelConfig(
        vocab=vocab, width=width, layers=layers, heads=heads, kv_heads=kv_heads, mlp=mlp, context=context, **settings
    )


def _llama3(width: int, layers: int, heads: int, mlp: int, factor: float, **more: Any) -> ModelConfig:
    scaling = RopeScaling("llama3", factor, 1.0, 4.0, 8192)
    return _llama(128_256, width, layers, heads, 8, mlp, 131_072, rope_base=5e5, rope_scaling=scaling, **more)


def _qwen2(vocab: int, width: int, layers: int, heads: int, kv_heads: int, mlp: int, tied: bool) -> ModelConfig:
    more = {"rope_base": 1e6, "norm_epsilon": 1e-6, "qkv_bias": True, "tied_embedding": tied}
    return _llama(vocab, width, layers, heads, kv_heads, mlp, 32_768, **more)


def _qwen3(width: int, layers: int, heads: int, mlp: int, tied: bool) -> ModelConfig:
    more = {"head_width": 128, "rope_base": 1e6, "norm_epsilon": 1e-6, "qk_norm": True, "tied_embedding": tied}
    return _llama(151_936, width, layers, heads, 8, mlp, 40_960, **more)


def _gemma(vocab: int, width: int, layers: int, heads: int, kv_heads: int, mlp: int, context: int, **more: Any) -> ModelConfig:
    settings: dict[str, Any] = {
        "head_width": 256, "norm": "rms_plus_one", "norm_epsilon": 1e-6, "activation": "gelu", "scaled_embedding": True,
        "tied_embedding": True, **more,
    }  # fmt: skip
    return _llama(vocab, width, layers, heads, kv_heads, mlp, context, **settings)


def _gemma2(width: int, layers: int, heads: int, kv_heads: int, mlp: int) -> ModelConfig:
    more = {"post_norms": True, "attention_softcap": 50.0, "logit_softcap": 30.0}
    windows = tuple(4096 * (i % 2 == 0) for i in range(layers))
    return _gemma(256_000, width, layers, heads, kv_heads, mlp, 8192, windows=windows, **more)


PRESETS: dict[str, ModelConfig] = {
    "palm-8b": _palm(32, 16, 4096),
    "palm-62b": _palm(64, 32, 8192),
    "palm-540b": _palm(118, 48, 18_432),
    "llama-2-7b": _llama(32_000, 4096, 32, 32, 32, 11_008, 4096),
    "llama-3.2-1b": _llama3(2048, 16, 32, 8192, 32.0, tied_embedding=True),
    "llama-3.2-3b": _llama3(3072, 28, 24, 8192, 32.0, tied_embedding=True),
    "llama-3.1-8b": _llama3(4096, 32, 32, 14_336, 8.0),
    "mistral-7b-v0.1": _llama(32_000, 4096, 32, 32, 8, 14_336, 32_768, windows=(4096,) * 32),
    "qwen2.5-0.5b": _qwen2(151_936, 896, 24, 14, 2, 4864, tied=True),
    "qwen2.5-1.5b": _qwen2(151_936, 1536, 28, 12, 2, 8960, tied=True),
    "qwen2.5-7b": _qwen2(152_064, 3584, 28, 28, 4, 18_944, tied=False),
    "qwen3-0.6b": _qwen3(1024, 28, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 6144, tied=True),
    "gemma-2b": _gemma(256_000, 2048, 18, 8, 1, 16_384, 8192),
    "gemma-2-2b": _gemma2(2304, 26, 8, 4, 9216),
    "gemma-2-9b": _gemma2(3584, 42, 16, 8, 14_336),
    "gemma-3-1b": _gemma(
        262_144, 1152, 26, 4, 1, 6912, 32_768, rope_base=1e6, rope_base_local=1e4, qk_norm=True, post_norms=True,
        windows=tuple(512 * ((i + 1) % 6 != 0) for i in range(26)),
    ),
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    """Return a published architecture. Raises UserError that suggests the nearest name when there is no such preset."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]
