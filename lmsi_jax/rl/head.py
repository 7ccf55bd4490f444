"""A language model with a head that reads a number from its hidden states: a score of an answer, or the value of a state."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.training.trainable import Trainable


class ModelWithHead(struct.PyTreeNode):
    """A language model and the vector that turns its hidden state into a number."""

    model: Any
    head: Float[Array, " d"]

    def read(self, states: Float[Array, "n t d"]) -> Float[Array, "n t"]:
        """Return the number that the head reads from each hidden state."""
        return jnp.einsum("ntd,d->nt", states.astype(jnp.float32), self.head)


def policy_of(model: Any) -> Any:
    """Return the language model of a `ModelWithHead`, or a model without a head as it is."""
    return model.model if isinstance(model, ModelWithHead) else model


@dataclasses.dataclass(frozen=True)
class WithHead:
    """What is trained: the weights or adapters of a model, and a head.

    A head starts at 0, which makes all values 0, or normal with variance 1 / (width + 1), as rewards do.
    """

    inner: Trainable
    config: ModelConfig
    starts_at_zero: bool = False

    @property
    def trains_weights(self) -> bool:
        return self.inner.trains_weights

    def abstract(self) -> tuple[Any, Any]:
        shapes, axes = self.inner.abstract()
        of_width = transformer.abstract(self.config)[1]["final_norm"]["scale"]
        head = jax.ShapeDtypeStruct((self.config.width,), jnp.float32)
        return {"model": shapes, "head": head}, {"model": axes, "head": of_width}

    def decays(self) -> Any:
        return {"model": self.inner.decays(), "head": False}

    def rate_factors(self) -> Any:
        return {"model": self.inner.rate_factors(), "head": 1.0}

    def init(self, params: transformer.Params, seed: int) -> Any:
        """Return the trained arrays at step 0."""
        width = self.config.width
        scale = 0.0 if self.starts_at_zero else (width + 1) ** -0.5
        head = scale * jax.random.normal(jax.random.key(seed), (width,))
        return {"model": self.inner.init(params, seed), "head": head}

    def frozen(self, params: transformer.Params) -> transformer.Params:
        return self.inner.frozen(params)

    def model(self, frozen: transformer.Params, trained: Any) -> ModelWithHead:
        return ModelWithHead(self.inner.model(frozen, trained["model"]), trained["head"])

    def merged(self, params: transformer.Params, trained: Any) -> transformer.Params:
        return self.inner.merged(params, trained["model"])
