"""Settings of the transformer and of its low-rank adapters."""

import dataclasses
import re
from typing import Literal

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import require, require_at_least, require_positive


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Scaling of rotary positions beyond the context of pre-training. Layers that use `rope_base_local` are not scaled."""

    kind: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0  # frequencies are divided by this
    low_frequency: float = 1.0  # llama3: pairs with fewer rotations within original_context are scaled in full
    high_frequency: float = 4.0  # llama3: pairs with more rotations are not scaled
    original_context: int = 8192  # llama3: the context of pre-training, in tokens

    def check(self, path: str) -> None:
        require_positive(self, path, "factor")
        require(
            self.kind != "llama3" or self.high_frequency > self.low_frequency,
            f"{path}high_frequency={self.high_frequency} must be above low_frequency={self.low_frequency}.",
        )


@dataclasses.dataclass(frozen=True)
class ExpertsConfig:
    """MLPs of which each token uses a few, in place of one; see model/experts.py."""

    count: int = 0  # experts of a layer; 0 = one dense MLP
    per_token: int = 2  # experts that a token uses
    mlp: int = 0  # width of an expert's hidden layer; 0 = `mlp` of the model
    shared_mlp: int = 0  # width of the hidden layer of an expert that all tokens use (Qwen2-MoE); 0 = none
    renormalised: bool = True  # the weights of the chosen experts add up to 1 (Mixtral)
    dense_layers: tuple[int, ...] = ()  # the layers with one dense MLP, counted from 0

    def check(self, path: str) -> None:
        require_at_least(0, self, path, "count", "mlp", "shared_mlp")
        require_at_least(1, self, path, "per_token")
        require(
            not self.count or self.per_token <= self.count,
            f"{path}per_token={self.per_token} is more than {path}count={self.count} experts.",
        )
        require(
            bool(self.count) or dataclasses.replace(self, per_token=2) == ExpertsConfig(),
            f"{path}count=0, and other settings of {path.rstrip('.')} have no effect; set the number of experts.",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture of a decoder-only transformer. Model families differ in these settings; the defaults are Llama's."""

    vocab: int = 768  # rows of the embedding
    width: int = 128  # of the residual stream
    layers: int = 4
    heads: int = 4  # query heads
    kv_heads: int = 2  # key and value heads
    head_width: int = 32
    mlp: int = 512  # width of the MLP's hidden layer
    experts: ExpertsConfig = ExpertsConfig()
    context: int = 2048  # longest sequence, in tokens
    rope_base: float = 10_000.0
    rope_base_local: float = 0.0  # RoPE base of sliding-window layers; 0 = rope_base
    rope_scaling: RopeScaling = RopeScaling()
    windows: tuple[int, ...] = ()  # sliding window of each layer in tokens, the token itself included; 0 = full attention
    norm: Literal["rms", "rms_plus_one", "layer"] = "rms"  # rms_plus_one: the scale is 1 + the stored weight (Gemma)
    norm_epsilon: float = 1e-6
    post_norms: bool = False  # norms also after attention and MLP (Gemma 2, 3)
    qk_norm: bool = False  # norms of each head's query and key (Qwen3, Gemma 3)
    qkv_bias: bool = False  # biases of the query, key and value projections (Qwen2)
    parallel: bool = False  # attention and MLP in parallel, after one norm (PaLM)
    activation: Literal["silu", "gelu"] = "silu"  # of the MLP's gate; gelu is the tanh approximation
    attention_scale: float = 0.0  # factor of the attention scores; 0 = 1 / sqrt(head_width)
    attention_softcap: float = 0.0  # bound of the attention scores, softcap * tanh(score / softcap); 0 = none (Gemma 2)
    logit_softcap: float = 0.0  # bound of the logits, by the same formula; 0 = none
    base_width: int = 0  # the width whose learning rate is used (model/width.py); 0 = the standard parametrisation
    tied_embedding: bool = True  # the unembedding is the embedding
    scaled_embedding: bool = False  # embedded tokens are multiplied by sqrt(width) (Gemma, PaLM, the built-in model)
    param_dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of storage; the optimiser's copy is float32
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the matrix products; norms, softmax and logits stay float32
    cache_dtype: Literal["compute", "float32", "bfloat16"] = "compute"  # of the KV cache; compute = dtype
    sum_dtype: Literal["compute", "float32"] = "compute"  # of the products' sums before rounding to dtype

    @property
    def expert_mlp(self) -> int:
        """The width of an expert's hidden layer."""
        return self.experts.mlp or self.mlp

    @property
    def sparse_layers(self) -> tuple[int, ...]:
        """The layers with experts."""
        return tuple(i for i in range(self.layers) if self.experts.count and i not in self.experts.dense_layers)

    def check(self, path: str) -> None:
        require_at_least(0, self, path, "base_width")
        require_at_least(1, self, path, "vocab", "width", "layers", "heads", "kv_heads", "head_width", "mlp", "context")
        require(
            self.heads % self.kv_heads == 0,
            f"{path}heads={self.heads} is not a multiple of {path}kv_heads={self.kv_heads}; each key/value "
            f"head serves the same number of query heads.",
        )
        require(
            all(0 <= layer < self.layers for layer in self.experts.dense_layers),
            f"{path}experts.dense_layers={self.experts.dense_layers} must be within 0..{self.layers - 1}, the layers.",
        )
        require(self.head_width % 2 == 0, f"{path}head_width={self.head_width} is odd; RoPE rotates pairs of dimensions.")
        require(
            len(self.windows) in (0, self.layers) and all(window >= 0 for window in self.windows),
            f"{path}windows={self.windows} must be empty or have a window (0 = none) for each of {path}layers={self.layers}.",
        )


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters instead of full fine-tuning; see model/lora.py."""

    rank: int = 0  # 0 trains all parameters
    alpha: float = 16.0  # the adapters' product is multiplied by alpha / rank
    targets: str = r"attention_\d+/(query|key|value|out)|mlp_\d+/(gate|up|down)"  # regex for the paths of adapted weights

    def check(self, path: str) -> None:
        require(self.rank >= 0, f"{path}rank={self.rank} is negative; 0 trains all parameters.")
        require_positive(self, path, "alpha")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"{path}targets={self.targets!r} is not a regular expression: {error}.") from error
