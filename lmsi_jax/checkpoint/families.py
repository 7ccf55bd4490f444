"""The model families whose Hugging Face folders are read and written. Each is a set of `ModelConfig` settings."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import build
from lmsi_jax.model.config import ModelConfig

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of `transformers`: its class, its settings here, and the defaults of what its config.json may omit."""

    architecture: str
    settings: Callable[[Json], dict[str, Any]]  # config.json -> the ModelConfig settings specific to the family
    tied: bool = False  # default of tie_word_embeddings
    head_width: int = 0  # default of head_dim; 0 = hidden_size / num_attention_heads
    rope_base: float = 10_000.0  # default of rope_theta
    names: tuple[tuple[str, str], ...] = ()  # parts of tensors' names in model/, and what its folders call them

    def file_name(self, name: str) -> str:
        """Return the name of a tensor in folders of the family, from that in `model/`."""
        for ours, theirs in self.names:
            name = name.replace(ours, theirs)
        return name


def _llama(hf: Json) -> dict[str, Any]:
    return {"activation": _activation(hf.get("hidden_act", "silu"))}


def _mistral(hf: Json) -> dict[str, Any]:
    return {**_llama(hf), "windows": _windows(hf, lambda i: True)}


def _qwen2(hf: Json) -> dict[str, Any]:
    return {**_qwen3(hf), "qk_norm": False, "qkv_bias": True}


def _qwen3(hf: Json) -> dict[str, Any]:
    windowed = hf.get("use_sliding_window", False)
    windows = _windows(hf, lambda i: i >= hf.get("max_window_layers", 28)) if windowed else ()
    return {**_llama(hf), "qk_norm": True, "windows": windows}


def _mixtral(hf: Json) -> dict[str, Any]:
    experts = {"count": hf.get("num_local_experts", 8), "per_token": hf.get("num_experts_per_tok", 2)}
    return {**_mistral({"sliding_window": None, **hf}), "experts": experts}


def _qwen3_moe(hf: Json, count: int = 128, per_token: int = 8, width: int = 768) -> dict[str, Any]:
    every, only = hf.get("decoder_sparse_step", 1), hf.get("mlp_only_layers") or []
    experts = {
        "count": hf.get("num_experts", hf.get("num_local_experts", count)),  # the latter is the newer name
        "per_token": hf.get("num_experts_per_tok", per_token),
        "mlp": hf.get("moe_intermediate_size", width),
        "renormalised": hf.get("norm_topk_prob", False),
        "dense_layers": [i for i in range(hf["num_hidden_layers"]) if i in only or (i + 1) % every],
    }
    return {**_qwen3(hf), "experts": experts}


def _qwen2_moe(hf: Json) -> dict[str, Any]:
    ours = _qwen3_moe(hf, count=60, per_token=4, width=1408)
    experts = {**ours["experts"], "shared_mlp": hf.get("shared_expert_intermediate_size", 5632)}
    return {**ours, "qk_norm": False, "qkv_bias": hf.get("qkv_bias", True), "experts": experts}


def _gemma(hf: Json) -> dict[str, Any]:
    # The first Gemma folders have "gelu" but mean its tanh approximation.
    activation = hf.get("hidden_activation") or hf.get("hidden_act") or "gelu"
    activation = "gelu_pytorch_tanh" if activation == "gelu" else activation
    return {"activation": _activation(activation), "norm": "rms_plus_one", "scaled_embedding": True}


def _gemma2(hf: Json) -> dict[str, Any]:
    return {
        "activation": _activation(hf.get("hidden_activation", "gelu_pytorch_tanh")),
        "norm": "rms_plus_one",
        "scaled_embedding": True,
        "post_norms": True,
        "attention_scale": 1 / math.sqrt(hf.get("query_pre_attn_scalar", 256)),
        "attention_softcap": hf.get("attn_logit_softcapping", 50.0) or 0.0,
        "logit_softcap": hf.get("final_logit_softcapping", 30.0) or 0.0,
        "windows": _windows(hf, lambda i: i % 2 == 0),
    }


def _gemma3(hf: Json) -> dict[str, Any]:
    period = hf.get("sliding_window_pattern", hf.get("_sliding_window_pattern", 6))
    caps = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    rope = _rope_parameters(hf, "sliding_attention")
    local = rope.get("rope_theta", hf.get("rope_local_base_freq", 10_000.0))
    if _rope_scaling(rope if "full_attention" in (hf.get("rope_parameters") or {}) else {}):
        raise UserError("config.json scales the rotary positions of sliding-window layers, which this transformer does not.")
    return {
        **_gemma2({**caps, **hf}),
        "qk_norm": True,
        "rope_base_local": local,
        "windows": _windows(hf, lambda i: (i + 1) % period != 0),
    }


_MIXTRAL_NAMES = (
    ("mlp.gate.", "block_sparse_moe.gate."), ("mlp.experts.", "block_sparse_moe.experts."),
    ("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2"),
)  # fmt: skip
FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", _llama),
    "mistral": Family("MistralForCausalLM", _mistral),
    "qwen2": Family("Qwen2ForCausalLM", _qwen2),
    "qwen3": Family("Qwen3ForCausalLM", _qwen3, head_width=128),
    "mixtral": Family("MixtralForCausalLM", _mixtral, rope_base=1e6, names=_MIXTRAL_NAMES),
    "qwen2_moe": Family("Qwen2MoeForCausalLM", _qwen2_moe),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", _qwen3_moe),
    "gemma": Family("GemmaForCausalLM", _gemma, tied=True, head_width=256),
    "gemma2": Family("Gemma2ForCausalLM", _gemma2, tied=True, head_width=256),
    "gemma3_text": Family("Gemma3ForCausalLM", _gemma3, tied=True, head_width=256, rope_base=1e6),
}


def family(hf: Json) -> Family:
    """Return the family of a config.json of `transformers`. Raises UserError when the family is not supported."""
    known = FAMILIES.get(hf.get("model_type", ""))
    if not known:
        raise UserError(
            f"model_type '{hf.get('model_type')}' (architectures {hf.get('architectures')}) is not a supported family. The "
            f"supported ones are {', '.join(FAMILIES)}. Choose a text model of one of these."
        )
    return known


def model_config(hf: Json, dtype: str) -> ModelConfig:
    """Return the ModelConfig for a config.json of `transformers` whose tensors are stored as `dtype`.

    Raises UserError when config.json is incomplete or has a feature that this transformer lacks.
    """
    kind = family(hf)
    hf = {name: value for name, value in hf.items() if value is not None or name in _MAY_BE_NULL}
    missing = [name for name in _SIZES.values() if not isinstance(hf.get(name), int)]
    if missing:
        raise UserError(f"config.json has no {', '.join(missing)}; copy the file again from the model's source.")
    for name in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        if hf.get(name):
            raise UserError(f"config.json sets {name}={hf[name]}, which this transformer does not support.")
    try:
        return build(ModelConfig, {**_common(kind, hf, dtype), **kind.settings(hf)})
    except KeyError as error:
        raise UserError(f"config.json has no {error}, which its other settings require; copy the file again.") from error


def _common(kind: Family, hf: Json, dtype: str) -> dict[str, Any]:
    rope = _rope_parameters(hf, "full_attention")
    sizes = {ours: hf[theirs] for ours, theirs in _SIZES.items()}
    return {
        **sizes,
        "kv_heads": hf.get("num_key_value_heads") or sizes["heads"],
        "head_width": hf.get("head_dim") or kind.head_width or sizes["width"] // sizes["heads"],
        "rope_base": rope.get("rope_theta", hf.get("rope_theta", kind.rope_base)),
        "rope_scaling": _rope_scaling(rope or hf.get("rope_scaling") or {}),
        "norm_epsilon": hf.get("rms_norm_eps", 1e-6),
        "tied_embedding": hf.get("tie_word_embeddings", kind.tied),
        "param_dtype": dtype,
        "dtype": "float32" if dtype == "float32" else "bfloat16",
    }


_MAY_BE_NULL = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")  # null: none; absent: default
_SIZES = {  # settings of ModelConfig, and their names in config.json, which may not be absent
    "vocab": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "context": "max_position_embeddings",
}


def _rope_parameters(hf: Json, layer_type: str) -> Json:
    """Return the rotary settings in the newer format, in which each layer type may have its own."""
    stored = hf.get("rope_parameters") or {}
    return stored.get(layer_type, {}) if "full_attention" in stored else stored


def _rope_scaling(rope: Json) -> dict[str, Any]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return {}
    if kind == "linear":
        return {"kind": kind, "factor": rope["factor"]}
    if kind == "llama3":
        names = {"factor": "factor", "low_frequency": "low_freq_factor", "high_frequency": "high_freq_factor"}
        original = int(rope["original_max_position_embeddings"])
        return {"kind": kind, "original_context": original, **{ours: rope[theirs] for ours, theirs in names.items()}}
    raise UserError(f"config.json asks for RoPE scaling of type '{kind}'; the supported types are default, linear and llama3.")


def _windows(hf: Json, is_local: Callable[[int], bool]) -> tuple[int, ...]:
    """Return the window of each layer, from `layer_types` or else from the pattern of the family."""
    window = hf.get("sliding_window", _WINDOW)
    if not window:
        return ()
    types = hf.get("layer_types") or [_TYPES[is_local(i)] for i in range(hf["num_hidden_layers"])]
    if not set(types) <= set(_TYPES.values()):
        raise UserError(f"config.json has layers of type {sorted(set(types) - set(_TYPES.values()))}, which are not supported.")
    return tuple(window if kind == _TYPES[True] else 0 for kind in types)


_WINDOW = 4096  # default of sliding_window; null means that there is none
_TYPES = {True: "sliding_attention", False: "full_attention"}


def _activation(name: str) -> str:
    known = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}
    if name not in known:
        raise UserError(f"config.json asks for the activation '{name}'; the supported ones are {', '.join(known)}.")
    return known[name]
