"""Maximal update parametrisation (Yang et al. 2022, arXiv 2203.03466): one learning rate for models of all widths.

With `ModelConfig.base_width`, Adam's learning rate of each matrix is divided by width / base_width, and that of the embedding
by its square root, and so are the logits. Activations then change by the same amount in a step whatever the width, so that the
best learning rate of a narrow model is that of a wide one. Initial values are those of the standard parametrisation, whose
variance is 1 / inputs already. The width of a head must stay the same, and a matrix's weight decay shrinks with its rate.
"""

import math
from typing import Any

import jax

from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.spec import WeightSpec


def rate_factors(config: ModelConfig) -> Any:
    """Return the factor of the learning rate of each parameter, as a tree."""
    narrower = config.base_width / config.width if config.base_width else 1.0

    def factor(spec: WeightSpec) -> float:
        return math.sqrt(narrower) if spec.is_table else narrower if spec.summed else 1.0

    return jax.tree.map(factor, transformer.specs(config))
