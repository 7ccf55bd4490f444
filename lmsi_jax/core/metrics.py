"""Means that add up exactly over microbatches and hosts."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float


@struct.dataclass
class Mean:
    """A mean stored as (sum, count), so that partial means combine without error."""

    total: Float[Array, ""]
    count: Float[Array, ""]

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> Float[Array, ""]:
        """The mean; 0 of nothing, such as a batch whose sequences are all left out."""
        return self.total / jnp.where(self.count == 0, 1.0, self.count)
