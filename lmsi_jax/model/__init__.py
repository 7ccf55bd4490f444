"""The transformer, reached through three functions: `abstract`, `init`, `forward`."""

from lmsi_jax.model.attention import Block
from lmsi_jax.model.layers import cache_dtype
from lmsi_jax.model.quantize import Quantized, quantize
from lmsi_jax.model.transformer import Params, abstract, count_params, forward, init

__all__ = ["Block", "Params", "Quantized", "abstract", "cache_dtype", "count_params", "forward", "init", "quantize"]
