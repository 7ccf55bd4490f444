"""Peak rates of devices, from their data sheets or measured here, which other figures are compared with."""

import dataclasses
import math
import re
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmsi_jax.core.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip in its vendor's data sheet: memory (bytes), bfloat16 operations per second, memory traffic (bytes per second).

    `kinds` are the parts of a device's own name (`device_kind`) that identify the chip.
    """

    memory: float
    operations: float
    bandwidth: float
    kinds: tuple[str, ...] = ()


# The first chip with a matching kind counts.
CHIPS = {
    "v4": Chip(32.0 * GIB, 275e12, 1.2e12, ("v4",)),
    "v5e": Chip(16.0 * GIB, 197e12, 0.82e12, ("v5 lite", "v5e")),
    "v5p": Chip(95.0 * GIB, 459e12, 2.77e12, ("v5",)),
    "v6e": Chip(32.0 * GIB, 918e12, 1.64e12, ("v6 lite", "v6e")),
    "a100": Chip(80.0 * GIB, 312e12, 2.0e12, ("a100",)),
    "h100-pcie": Chip(80.0 * GIB, 756e12, 2.0e12, ("h100 pcie",)),
    "h100": Chip(80.0 * GIB, 989e12, 3.35e12, ("h100",)),
    "cpu": Chip(8.0 * GIB, 0.1e12, 0.02e12),
}
TPUS = ("v4", "v5e", "v5p", "v6e")


def parse_topology(name: str) -> tuple[str, int]:
    """Return the chip and the number of devices of a topology such as v5e:4x4 or h100:8. Raises UserError for another name."""
    chip, _, size = name.partition(":")
    if chip not in CHIPS or not re.fullmatch("[1-9][0-9]*(x[1-9][0-9]*)*", size, re.ASCII):
        raise UserError(
            f"--topology={name}: write a chip and a number or a grid, such as v5e:4x4, v5p:8x8x8 or h100:8. Chips: "
            f"{', '.join(CHIPS)}."
        )
    return chip, math.prod(map(int, size.split("x")))


def peak_operations(devices: Sequence[jax.Device], dtype: str) -> float | None:
    """Return the peak floating-point operations per second of all devices together; None for an unknown accelerator.

    The peak of a CPU is measured in `dtype` on this host, and other hosts are assumed to be like it. The peak of an
    accelerator is its bfloat16 peak whatever the dtype, so that utilisation shows what computing in float32 costs.
    """
    kind = devices[0].device_kind.lower()
    if devices[0].platform == "cpu":
        return matmul_peak(dtype, size=1024) * len({device.process_index for device in devices})
    chip = next((chip for chip in CHIPS.values() if any(name in kind for name in chip.kinds)), None)
    return None if chip is None else chip.operations * len(devices)


def seconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median time of a call of `run`, in seconds, until its result is ready. One call before warms up."""
    jax.block_until_ready(run())
    return sorted(timeit.repeat(lambda: jax.block_until_ready(run()), repeat=repeats, number=1))[repeats // 2]


def matmul_peak(dtype: str = "float32", size: int = 0) -> float:
    """Return the floating-point operations per second of a (size, size) matrix product on one local device.

    Size 0 is large enough for the device: 2,048 on a CPU, 8,192 on an accelerator.
    """
    device = jax.local_devices()[0]
    size = size or (2048 if device.platform == "cpu" else 8192)
    values = np.random.default_rng(0).standard_normal((size, size)).astype(jnp.dtype(dtype))
    product = jax.jit(lambda x: x @ x)
    with jax.set_mesh(jax.sharding.Mesh(np.array([device]), ("alone",))):  # independent of the caller's mesh
        a = jax.device_put(values, device)
        return 2 * size**3 / seconds(lambda: product(a))


def bandwidth(megabytes: int = 0) -> float:
    """Return the bytes per second at which a device reads an array of this size in MiB.

    Size 0 is large enough for the device: 256 on a CPU, 4,096 on an accelerator.
    """
    megabytes = megabytes or (256 if jax.local_devices()[0].platform == "cpu" else 4096)
    values = jnp.ones((megabytes * 2**18,), jnp.float32)
    total = jax.jit(lambda x: jnp.sum(x))
    return values.nbytes / seconds(lambda: total(values))
