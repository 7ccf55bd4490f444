"""The metrics of training steps: read from the device and written to the metrics file."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from lmsi_jax.core import clock, counters
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import peak_operations
from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.progress import console
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.training.config import UpdateConfig

OnStep = Callable[[int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one step: `tokens` trained on, and `flops` floating-point operations in the number format `dtype`."""

    tokens: int
    flops: float
    dtype: str


class Diverged(UserError):
    """The loss or the gradient norm of `step` is not finite."""

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


class StepLog:
    """Passes the metrics of steps to `on_step` and to a file, with tokens per second and MFU.

    MFU is the share of the devices' peak floating-point operations per second.
    """

    def __init__(
        self, mesh: Mesh, config: UpdateConfig, of_step: Work | None, writer: MetricWriter, start: int, on_step: OnStep
    ):
        self._config, self._work, self._writer, self._on_step = config, of_step, writer, on_step
        devices = list(mesh.devices.devices.flat)
        self._peak = peak_operations(devices, of_step.dtype) if of_step else None
        if of_step and self._peak is None:
            console.print(f"The peak speed of {devices[0].device_kind} is unknown, so the metrics have no mfu.")
        self._last, self._at = start, time.perf_counter()

    def read(self, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
        """Wait for the values of one step and return them. Raises Diverged when the loss or the gradient norm is not finite."""
        with clock.spend("train"):
            values = {key: float(value) for key, value in metrics.items()}
        if not (np.isfinite(values["loss"]) and np.isfinite(values["grad_norm"])):
            raise Diverged(
                step,
                f"the loss at step {step} is {values['loss']} (gradient norm {values['grad_norm']}). Training has diverged; "
                f"lower learning_rate (now {self._config.learning_rate}).",
            )
        if self._work:
            counters.add(tokens=float(self._work.tokens), operations=self._work.flops)
        self._on_step(step, values)
        return values

    def write(self, step: int, values: Mapping[str, float], *, measured: bool = False) -> None:
        """Write the values every `log_every` steps, after the last step, and when a hook `measured` some of them."""
        config = self._config
        regular = step % config.log_every == 0 or step == config.steps
        if not (regular or measured):
            return
        speeds = {}
        if regular and self._work:
            now = time.perf_counter()
            steps, seconds = step - self._last, now - self._at
            speeds["tokens_per_second"] = self._work.tokens * steps / seconds
            if self._peak is not None:
                speeds["mfu"] = self._work.flops * steps / seconds / self._peak
            self._last, self._at = step, now
        self._writer.write(step, **values, **speeds)
