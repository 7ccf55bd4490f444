"""Settings of a loaded model."""

import dataclasses
from typing import Any, Literal

from lmsi_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Numerics:
    """The number formats to compute in. `resolve_numerics` replaces "auto", which depends on the platform, once per run."""

    dtype: Literal["stored", "float32", "bfloat16"] = "stored"  # of matrix products; stored = dtype of the ModelConfig
    cache_dtype: Literal["auto", "compute", "float32", "bfloat16"] = "auto"  # of the KV cache; compute = dtype
    sum_dtype: Literal["auto", "compute", "float32"] = "auto"  # in which products are accumulated; compute = dtype

    def of(self, stored: ModelConfig) -> ModelConfig:
        """Return the architecture `stored`, computed in these formats. Raises ValueError when one of them is "auto"."""
        if "auto" in (self.cache_dtype, self.sum_dtype):
            raise ValueError("cache_dtype and sum_dtype must be resolved for a platform first")
        formats: Any = {"cache_dtype": self.cache_dtype, "sum_dtype": self.sum_dtype}
        return dataclasses.replace(stored, dtype=stored.dtype if self.dtype == "stored" else self.dtype, **formats)


@dataclasses.dataclass(frozen=True)
class SourceConfig(Numerics):
    """A model by its checkpoint: "builtin", a checkpoint folder that lmsi wrote, or a Hugging Face folder."""

    checkpoint: str = "builtin"


def resolve_numerics(config: Any, platform: str) -> Any:
    """Return `config` with every "auto" in a `Numerics`, at any depth, replaced by the format that is fast on `platform`.

    On a CPU the cache is float32, because a batch of bfloat16 products takes ten times as long. Products are accumulated
    explicitly in float32, because bfloat16 results have no fast path there. GPUs and TPUs use the compute dtype.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    changes = {field.name: resolve_numerics(getattr(config, field.name), platform) for field in dataclasses.fields(config)}
    if isinstance(config, Numerics):
        fast = "float32" if platform == "cpu" else "compute"
        changes |= {name: fast for name in ("cache_dtype", "sum_dtype") if changes[name] == "auto"}
    return dataclasses.replace(config, **changes)
