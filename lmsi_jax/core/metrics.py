"""Means that add up exactly over microbatches and hosts."""

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
        return self.total / self.count
