"""Estimate the device memory of decoding from shapes, and choose the number of lanes that fits."""

import bisect
import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import jax

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import GIB
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.decoding.engine import PER_LANE, Limits
from lmsi_jax.decoding.prefill import CHUNK, padded_lengths
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.sharding.mesh import Mesh

SMALL = GIB // 4  # bytes that decoding may always use in addition to the weights: negligible on any device
READY = 4  # prefilled batches that wait for lanes: two to fill all lanes, and one more at each change of width


def limits(sampling: Sampling, batching: Batching, question: int, lanes: int | None = None) -> Limits:
    """Return the shapes of decoding questions of at most `question` tokens; `lanes` overrides `batching.lanes`."""
    lanes = batching.lanes if lanes is None else lanes
    slots, logprobs = min(batching.slots, sampling.paths), "logprobs" in sampling.keep
    return Limits(lanes, slots, sampling.paths, sampling.max_tokens, question, batching.sync_every, logprobs)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of decoding on one device, in bytes."""

    weights: int
    prompt: int  # KV cache of the prefix
    questions: int  # KV cache of the questions in the lanes and of those that are prefilled and waiting
    paths: int  # KV cache of the paths in flight
    output: int  # sampled tokens (and their log-probabilities), and the copy that the host reads
    working: int  # the largest activations: logits of all rows, or one layer of a prefill

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size_text(size)}" for name, size in dataclasses.asdict(self).items())
        return f"{size_text(self.total)} per device ({parts})"


def size_text(size: int) -> str:
    """Format a number of bytes, such as "3.21 GiB" or "0.4 MiB"."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def estimate(mesh: Mesh, config: ModelConfig, limits: Limits, prefix: int, weights: int = 0) -> Memory:
    """Return the memory of decoding after a prefix of `prefix` tokens.

    `weights`: bytes of the weights on a device; 0 = the size of the parameters as the config stores them.
    """
    item = transformer.cache_dtype(config).itemsize
    shards, kv_heads = mesh.size("batch"), -(-config.kv_heads // mesh.size("kv_heads"))
    token = 2 * config.layers * kv_heads * config.head_width * item  # bytes of a token's keys and values
    lanes, question = limits.lanes // shards, padded_lengths(limits.question)[-1]
    rows = lanes * limits.slots
    logits = 3 * 4 * rows * -(-config.vocab // mesh.size("vocab"))  # logits, exponentials, sums and masks
    hidden = config.experts.per_token * config.expert_mlp + config.experts.shared_mlp if config.sparse_layers else config.mlp
    mlp, heads = -(-hidden // mesh.size("mlp")), -(-config.heads // mesh.size("heads"))

    def prefill(tokens: int, context: int) -> int:
        """Return the bytes of one layer's MLP activations or attention scores and their exponentials; there are no logits."""
        return 4 * tokens * (config.width + max(3 * mlp, 2 * heads * context))

    chunk = prefill(min(CHUNK, prefix), prefix)
    batch = prefill(lanes * question, prefix + question)
    return Memory(
        weights or weight_bytes(mesh, config),
        token * prefix,
        token * question * lanes * (PER_LANE + READY),
        token * limits.max_tokens * rows,
        (2 + 2 * limits.logprobs) * 4 * lanes * PER_LANE * limits.paths * limits.max_tokens,
        max(logits, chunk, batch),
    )


def weight_bytes(mesh: Mesh, config: ModelConfig) -> int:
    """Return the bytes of the parameters on one device, in their stored dtype."""
    return bytes_on_device(transformer.sharded(mesh, config))


def bytes_on_device(arrays: Any) -> int:
    """Return the bytes on one device of a tree of arrays, which may be abstract arrays with shardings."""
    shards = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(arrays)]
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shards)


def fitting_lanes(mesh: Mesh, config: ModelConfig, limits: Limits, prefix: int, budget: int, weights: int = 0) -> int:
    """Return the largest number of lanes, at most `limits.lanes`, whose decoding fits into `budget` bytes per device.

    It is a multiple of the shards of the batch axis. `prefix` and `weights` are as in `estimate`. Raises UserError with the
    numbers when not even one lane per shard fits.
    """
    shards = mesh.size("batch")

    def memory(per_shard: int) -> Memory:
        return estimate(mesh, config, dataclasses.replace(limits, lanes=per_shard * shards), prefix, weights)

    sizes = range(1, max(limits.lanes // shards, 1) + 1)
    fitting = bisect.bisect_right(sizes, budget, key=lambda per_shard: memory(per_shard).total)
    if not fitting:
        raise UserError(
            f"Decoding does not fit: {shards} lanes of {limits.slots} slots need {memory(1)}, but only {size_text(budget)} may "
            f"be used. Set a smaller --config.sample.slots or --config.sample.max_tokens, --config.sample.weights=int8, or "
            f"shard the model over more devices (--config.mesh.tensor; --config.sample.gather=False if mesh.fsdp is above 1)."
        )
    return fitting * shards


def budget(mesh: Mesh, config: ModelConfig, limits: Limits, batching: Batching, prefix: int, weights: int, free: int) -> int:
    """Return the bytes per device that any decoding of a run may use, including the weights.

    With a fixed `batching.lanes` it is the memory of sampling within `limits`. Greedy decoding must fit into the same memory,
    although each of its lanes caches several questions for one path. With `batching.lanes=0` it is `batching.memory`, or the
    `weights` plus 90% of `free` if that is 0. `prefix` is in tokens; `weights` and `free` are in bytes per device.
    """
    if not batching.lanes:
        return int(batching.memory * GIB) or int(0.9 * free) + weights
    return max(estimate(mesh, config, limits, prefix, weights).total, weights + SMALL)


def free_bytes(mesh: Mesh) -> int:
    """Return the free bytes of the device that has the fewest; the devices of a CPU share the machine's free memory equally."""
    devices = mesh.devices.local_devices
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in s for s in stats):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(devices)
    return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)


@contextlib.contextmanager
def explain_out_of_memory(memory: Memory, limits: Limits) -> Iterator[None]:
    """Turn an out-of-memory error of a device into a UserError that gives the estimated memory and the settings to change."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"A device ran out of memory while decoding {limits.lanes} lanes of {limits.slots} slots; their estimated memory "
            f"is {memory}. Halve --config.sample.lanes, or set it to 0 to choose it automatically; or set --config.sample."
            f"weights=int8. Finished shards are kept. The runtime reports: {str(error).splitlines()[0][:300]}"
        ) from error
