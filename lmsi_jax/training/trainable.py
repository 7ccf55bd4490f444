"""What is trained in a model: all of its weights, or low-rank adapters on frozen weights."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from lmsi_jax.model import lora, stacked, transformer
from lmsi_jax.model.config import LoraConfig, ModelConfig
from lmsi_jax.model.width import rate_factors
from lmsi_jax.training.config import UpdateConfig


@runtime_checkable
class Trainable(Protocol):
    """A tree of trained arrays, and how it is combined with the initial parameters into a model."""

    @property
    def trains_weights(self) -> bool:
        """Whether every weight has a gradient."""

    def abstract(self) -> tuple[Any, Any]:
        """Return the shapes and the logical axes of the trained arrays, which are float32."""

    def decays(self) -> Any:
        """Return a tree of booleans: whether weight decay applies to each trained array."""

    def rate_factors(self) -> Any:
        """Return a tree of factors of the learning rate of each trained array."""

    def init(self, params: transformer.Params, seed: int) -> Any:
        """Return the trained arrays at step 0. Must be traceable by `jit`."""

    def frozen(self, params: transformer.Params) -> transformer.Params:
        """Return the parameters that each step reads but does not change; {} when there are none."""

    def model(self, frozen: transformer.Params, trained: Any) -> Any:
        """Return what an objective computes with. Must be traceable by `jit`."""

    def merged(self, params: transformer.Params, trained: Any) -> transformer.Params:
        """Return the parameters after training, in the storage dtype and with the shardings of the initial `params`."""


@dataclasses.dataclass(frozen=True)
class AllWeights:
    """All weights, trained as float32 copies."""

    config: ModelConfig
    trains_weights = True

    def abstract(self) -> tuple[Any, Any]:
        return transformer.abstract(dataclasses.replace(self.config, param_dtype="float32"))

    def decays(self) -> Any:
        return jax.tree.map(lambda spec: spec.decays, transformer.specs(self.config))

    def rate_factors(self) -> Any:
        return rate_factors(self.config)

    def init(self, params: transformer.Params, seed: int) -> Any:
        return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)

    def frozen(self, params: transformer.Params) -> transformer.Params:
        return {}

    def model(self, frozen: transformer.Params, trained: Any) -> transformer.Params:
        return trained

    def merged(self, params: transformer.Params, trained: Any) -> transformer.Params:
        return _stored_like(params, self.config, lambda params, trained: trained, trained)


@dataclasses.dataclass(frozen=True)
class StackedWeights:
    """All weights, trained as float32 copies with stacked layers, so that one block of layers is compiled for all."""

    config: ModelConfig
    trains_weights = True

    def abstract(self) -> tuple[Any, Any]:
        shapes, axes = transformer.abstract(dataclasses.replace(self.config, param_dtype="float32"))
        first = stacked.of_first_block(self.config, axes)
        with_blocks = jax.tree.map(lambda names: (None, *names), first.blocks, is_leaf=lambda leaf: isinstance(leaf, tuple))
        return jax.eval_shape(lambda params: stacked.stack(self.config, params), shapes), first.replace(blocks=with_blocks)

    def decays(self) -> Any:
        return stacked.of_first_block(self.config, AllWeights(self.config).decays())

    def rate_factors(self) -> Any:
        return stacked.of_first_block(self.config, AllWeights(self.config).rate_factors())

    def init(self, params: transformer.Params, seed: int) -> Any:
        return stacked.stack(self.config, AllWeights(self.config).init(params, seed))

    def frozen(self, params: transformer.Params) -> transformer.Params:
        return {}

    def model(self, frozen: transformer.Params, trained: Any) -> stacked.Stacked:
        return trained

    def merged(self, params: transformer.Params, trained: Any) -> transformer.Params:
        return _stored_like(params, self.config, lambda params, trained: stacked.unstack(self.config, trained), trained)


@dataclasses.dataclass(frozen=True)
class LowRankAdapters:
    """Low-rank adapters on frozen weights; see model/lora.py."""

    config: ModelConfig
    lora: LoraConfig
    trains_weights = False

    def abstract(self) -> tuple[Any, Any]:
        shapes, _ = transformer.abstract(self.config)
        return lora.abstract(shapes, transformer.specs(self.config), self.lora)

    def decays(self) -> Any:
        return jax.tree.map(lambda shape: True, self.abstract()[0])

    def rate_factors(self) -> Any:
        return jax.tree.map(lambda shape: 1.0, self.abstract()[0])

    def init(self, params: transformer.Params, seed: int) -> Any:
        return lora.init(self.abstract()[0], jax.random.key(seed))

    def frozen(self, params: transformer.Params) -> transformer.Params:
        return params

    def model(self, frozen: transformer.Params, trained: Any) -> lora.Adapted:
        return lora.Adapted(frozen, trained, self.lora)

    def merged(self, params: transformer.Params, trained: Any) -> transformer.Params:
        return _stored_like(params, self.config, lambda params, trained: lora.merge(params, trained, self.lora), trained)


def trainable(config: ModelConfig, settings: UpdateConfig) -> AllWeights | StackedWeights | LowRankAdapters:
    """Return low-rank adapters if `lora.rank` is above 0, else all weights, with stacked layers if `scan` says so."""
    if settings.lora.rank:
        return LowRankAdapters(config, settings.lora)
    return StackedWeights(config) if settings.scan else AllWeights(config)


def _stored_like(params: transformer.Params, config: ModelConfig, merge: Any, trained: Any) -> transformer.Params:
    def make(params: transformer.Params, trained: Any) -> transformer.Params:
        return jax.tree.map(lambda leaf: leaf.astype(config.param_dtype), merge(params, trained))

    return jax.jit(make, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params))(params, trained)
