"""What devices can do at most, by their data sheets or measured here: the yardstick of other figures."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Memory in bytes, bfloat16 operations and bytes of memory traffic a second, from the vendors' data sheets."""

    memory: float
    operations: float
    bandwidth: float


CHIPS = {
    "v4": Chip(32.0 * GIB, 275e12, 1.2e12),
    "v5e": Chip(16.0 * GIB, 197e12, 0.82e12),
    "v5p": Chip(95.0 * GIB, 459e12, 2.77e12),
    "v6e": Chip(32.0 * GIB, 918e12, 1.64e12),
    "a100": Chip(80.0 * GIB, 312e12, 2.0e12),
    "h100-pcie": Chip(80.0 * GIB, 756e12, 2.0e12),
    "h100": Chip(80.0 * GIB, 989e12, 3.35e12),
    "cpu": Chip(8.0 * GIB, 0.1e12, 0.02e12),
}
TPUS = ("v4", "v5e", "v5p", "v6e")
# What a device calls itself; the first that is part of it counts.
KINDS = {
    "v5 lite": "v5e",
    "v5e": "v5e",
    "v6 lite": "v6e",
    "v6e": "v6e",
    "v5": "v5p",
    "v4": "v4",
    "a100": "a100",
    "h100 pcie": "h100-pcie",
    "h100": "h100",
}


def peak_operations(devices: Sequence[jax.Device], dtype: str) -> float | None:
    """Floating-point operations a second of all devices together; None where no data sheet is known.

    A CPU's are measured, in `dtype`, on this host; others are taken to be like it. Of accelerators it is bfloat16's, whatever
    the dtype: a model that computes in float32 shows what that costs.
    """
    kind = devices[0].device_kind.lower()
    if devices[0].platform == "cpu":
        return matmul_peak(dtype, size=1024) * len({device.process_index for device in devices})
    found = next((chip for name, chip in KINDS.items() if name in kind), None)
    return None if found is None else CHIPS[found].operations * len(devices)


def seconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of `run`, whose result is waited for, after one call to warm up."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def matmul_peak(dtype: str = "float32", size: int = 2048) -> float:
    """Floating-point operations a second of a large square product on one of this process's devices."""
    device = jax.local_devices()[0]
    values = np.random.default_rng(0).standard_normal((size, size)).astype(jnp.dtype(dtype))
    product = jax.jit(lambda x: x @ x)
    with jax.set_mesh(jax.sharding.Mesh(np.array([device]), ("alone",))):  # whatever mesh the caller works on
        a = jax.device_put(values, device)
        return 2 * size**3 / seconds(lambda: product(a))


def bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that memory is read at."""
    values = jnp.ones((megabytes * 2**18,), jnp.float32)
    total = jax.jit(lambda x: jnp.sum(x))
    return values.nbytes / seconds(lambda: total(values))
