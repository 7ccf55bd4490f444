"""The spec of a weight, declared where the weight is created. Sharding, decay, adapters, int8 and file names derive from it."""

import dataclasses
from typing import Any

from flax import struct
from flax.core import meta


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """The spec of one weight.

    A weight without `summed` axes is a scale or a bias: it has no weight decay and is neither adapted nor quantised.
    """

    axes: tuple[str, ...]  # logical axes
    summed: tuple[int, ...]  # indices of the axes that a product with the weight sums over
    file_name: str  # name in a Hugging Face folder: "model.layers.0.self_attn.q_proj.weight"; "{}" = number on the first axis
    is_table: bool = False  # rows are looked up by token id; it has no adapters

    @property
    def decays(self) -> bool:
        """Whether weight decay applies to it."""
        return bool(self.summed)

    @property
    def adaptable(self) -> bool:
        """Whether it can have low-rank adapters, which read its first `len(summed)` axes."""
        return bool(self.summed) and not self.is_table and not self.is_stacked

    @property
    def is_stacked(self) -> bool:
        """Whether the entries of its first axis, which are experts, are tensors of their own in a Hugging Face folder."""
        return "{}" in self.file_name

    def entry(self, number: int) -> "WeightSpec":
        """Return the spec of one entry of the first axis of a stacked weight."""
        summed = tuple(axis - 1 for axis in self.summed)
        return WeightSpec(self.axes[1:], summed, self.file_name.format(number), self.is_table)

    def tensors(self, shape: tuple[int, ...]) -> "list[tuple[WeightSpec, tuple[int, ...]]]":
        """Return the spec and the shape here of each tensor in the file: those of the entries if the weight is stacked."""
        return [(self.entry(i), shape[1:]) for i in range(shape[0])] if self.is_stacked else [(self, shape)]

    @property
    def file_axes(self) -> tuple[tuple[int, ...], ...]:
        """For each axis of the Hugging Face tensor, the axes of this weight that it flattens: outputs, then inputs."""
        outputs = tuple(axis for axis in range(len(self.axes)) if axis not in self.summed)
        return (outputs, self.summed) if self.summed else (outputs,)


class Declared(struct.PyTreeNode, meta.AxisMetadata[Any]):
    """A weight with its spec, in the form that Flax keeps until it is unboxed."""

    value: Any
    spec: WeightSpec = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, val: Any) -> "Declared":
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        raise NotImplementedError("weights are declared layer by layer")

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        raise NotImplementedError("weights are declared layer by layer")
