"""What decoding holds on a device, from shapes alone, and how many lanes fit into what there is."""

import bisect
import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import jax

from lmsi_jax import model
from lmsi_jax.core.config import ModelConfig, SampleConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import GIB
from lmsi_jax.decoding.engine import HELD
from lmsi_jax.decoding.prefill import CHUNK, widths
from lmsi_jax.sharding import Mesh, param_shardings, use_mesh

SMALL = GIB // 4  # bytes that decoding may always take beside the weights: no device counts them
READY = 4  # prefilled batches beside the lanes' own: two to fill all lanes, and one more at each change of width


@dataclasses.dataclass(frozen=True)
class Shape:
    """How much is decoded at a time; lengths in tokens."""

    lanes: int
    slots: int
    paths: int
    max_tokens: int
    prompt: int
    question: int


def sampling_shape(sample: SampleConfig, lanes: int, prompt: int, question: int) -> Shape:
    """How many paths are sampled at a time, in this many lanes."""
    return Shape(lanes, min(sample.slots, sample.paths), sample.paths, sample.max_tokens, prompt, question)


def greedy_lanes(sample: SampleConfig, parts: int) -> int:
    """The most lanes of greedy decoding, one slot each: as many rows as sampling has in flight, over `parts` of the devices."""
    rows = sample.lanes * min(sample.slots, sample.paths)
    return max(1, rows // parts) * parts if rows else 0


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: int
    prompt: int  # keys and values of the few-shot prompt
    questions: int  # of the questions in the lanes and of those ready for them
    paths: int  # of the paths in flight
    output: int  # tokens drawn
    working: int  # the largest activations: logits of all rows, or one layer of a prefill

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size_text(size)}" for name, size in dataclasses.asdict(self).items())
        return f"{size_text(self.total)} a device ({parts})"


def size_text(size: int) -> str:
    """Bytes in words: "3.21 GiB", "0.4 MiB"."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def needed(mesh: Mesh, config: ModelConfig, shape: Shape, weights: int = 0) -> Memory:
    """What decoding in this shape holds. `weights`: their bytes on a device; 0 = as the config stores them."""
    with use_mesh(mesh):
        item = model.cache_dtype(config).itemsize
    parts, kv_heads = mesh.size("batch"), -(-config.kv_heads // mesh.size("kv_heads"))
    token = 2 * config.layers * kv_heads * config.head_width * item
    lanes, question = shape.lanes // parts, widths(shape.question)[-1]
    rows = lanes * shape.slots
    logits = 3 * 4 * rows * -(-config.vocab // mesh.size("vocab"))  # themselves, their exponentials, sums and masks
    wide, heads = -(-config.mlp // mesh.size("mlp")), -(-config.heads // mesh.size("heads"))

    def prefill(tokens: int, seen: int) -> int:
        """The MLP's activations or the scores and their exponentials, of one layer; prefill has no logits."""
        return 4 * tokens * (config.width + max(3 * wide, 2 * heads * seen))

    chunk = prefill(min(CHUNK, shape.prompt), shape.prompt)
    batch = prefill(lanes * question, shape.prompt + question)
    return Memory(
        weights or stored(mesh, config),
        token * shape.prompt,
        token * question * lanes * (HELD + READY),
        token * shape.max_tokens * rows,
        2 * 4 * lanes * HELD * shape.paths * shape.max_tokens,
        max(logits, chunk, batch),
    )


def stored(mesh: Mesh, config: ModelConfig) -> int:
    """Bytes of the parameters on one device."""
    shapes, axes = model.abstract(config)
    return sum(map(on_device, jax.tree.leaves(shapes), jax.tree.leaves(param_shardings(mesh, shapes, axes))))


def on_device(leaf: jax.ShapeDtypeStruct, place: jax.sharding.Sharding) -> int:
    """Bytes of one device's part of an array."""
    return math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def fitting_lanes(mesh: Mesh, config: ModelConfig, shape: Shape, budget: int, weights: int = 0) -> int:
    """The most lanes, up to `shape.lanes`, whose decoding takes at most `budget` bytes a device.

    Raises UserError with the numbers when not even one lane on each part of the devices does.
    """
    parts = mesh.size("batch")
    weights = weights or stored(mesh, config)

    def take(each: int) -> Memory:
        return needed(mesh, config, dataclasses.replace(shape, lanes=each * parts), weights)

    sizes = range(1, max(shape.lanes // parts, 1) + 1)
    fitting = bisect.bisect_right(sizes, budget, key=lambda each: take(each).total)
    if not fitting:
        least = take(1)
        raise UserError(
            f"Decoding does not fit: {parts} lanes of {shape.slots} slots need {least}, and there are {size_text(budget)}. "
            f"Set fewer --config.sample.slots, a shorter --config.sample.max_tokens, --config.sample.weights=int8, or spread "
            f"the model over more devices (--config.mesh.tensor; --config.sample.gather=False where mesh.fsdp is above 1)."
        )
    return fitting * parts


def budget(mesh: Mesh, config: ModelConfig, sample: SampleConfig, prompt: int, question: int, weights: int, free: int) -> int:
    """Bytes of each device that any decoding of a run may take, its weights included.

    With a given number of lanes it is what sampling takes with these: greedy decoding, each of whose lanes keeps the caches of
    several questions for one path, gets no more. With `sample.lanes=0` it is `sample.memory`, or nine tenths of what is `free`.
    """
    if not sample.lanes:
        return int(sample.memory * GIB) or int(0.9 * free) + weights
    sampling = sampling_shape(sample, sample.lanes, prompt, question)
    return max(needed(mesh, config, sampling, weights).total, weights + SMALL)


def held(params: Any) -> int:
    """Bytes of these arrays on one device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params))


def free(mesh: Mesh) -> int:
    """Bytes that each device has left, the fewest of all; a CPU's devices share what the machine has."""
    devices = mesh.devices.local_devices
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in s for s in stats):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(devices)
    return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)


@contextlib.contextmanager
def explained(memory: Memory, shape: Shape) -> Iterator[None]:
    """Say what was planned, and what to change, when a device runs out of memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"A device ran out of memory while decoding {shape.lanes} lanes of {shape.slots} slots; by their shapes they take "
            f"{memory}. Halve --config.sample.lanes, or set it to 0 to have it chosen; or set --config.sample.weights=int8. "
            f"What is finished is kept. The runtime says: {str(error).splitlines()[0][:300]}"
        ) from error
