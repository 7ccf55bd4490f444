"""What steps of training measured: read once it is there, and written down."""

import time
from collections.abc import Callable

import jax
import numpy as np

from lmsi_jax import model
from lmsi_jax.core import clock
from lmsi_jax.core.config import ModelConfig, TrainConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import peak_operations
from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.progress import console
from lmsi_jax.formatting.packing import PackedRows
from lmsi_jax.sharding import Mesh


def operations(config: ModelConfig, train: TrainConfig, rows: PackedRows) -> float:
    """Floating-point operations of the products of a step: forward, and twice that backward, where weights are trained.

    As in appendix B of Chowdhery et al. 2022 (arXiv 2204.02311), with the embedding counted as the product that it is at the
    end, and attention to the prompts that rows share.
    """
    n, t = train.batch, rows.tokens.shape[1]
    p, s = len(rows.prompts) * train.accumulate, max(map(len, rows.prompts), default=0)
    table = config.vocab * config.width
    dense = model.count_params(config) - table * (1 if config.tied_embedding else 2)
    attention = 4 * config.layers * config.heads * config.head_width
    weights = 2 * dense * (n * t + p * s) + 2 * table * n * t
    read = attention * (n * t * (t + s) + p * s * s)
    return float((2 if train.lora.rank else 3) * weights + 3 * read)


class Diverged(UserError):
    """The loss or the gradient of `step` is not finite."""

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


class StepLog:
    """Where the metrics of steps go: to the caller, and to a file, with tokens a second and the share of the peak (MFU)."""

    def __init__(
        self,
        mesh: Mesh,
        model_config: ModelConfig,
        config: TrainConfig,
        rows: PackedRows,
        writer: MetricWriter,
        start: int,
        on_step: Callable[[int, dict[str, float]], None],
    ):
        self._config, self._writer, self._on_step = config, writer, on_step
        devices = list(mesh.devices.devices.flat)
        self._peak = peak_operations(devices, model_config.dtype)
        self._operations = operations(model_config, config, rows)
        if self._peak is None:
            console.print(f"No peak is known for {devices[0].device_kind}: mfu is not in the metrics.")
        self._last, self._at = start, time.perf_counter()

    def read(self, step: int, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """Values of one step, waited for; written down every `log_every` steps. Raises Diverged where they are not finite."""
        config = self._config
        with clock.spend("train"):
            values = {key: float(value) for key, value in metrics.items()}
        if not (np.isfinite(values["loss"]) and np.isfinite(values["grad_norm"])):
            raise Diverged(
                step,
                f"the loss at step {step} is {values['loss']} (gradient norm {values['grad_norm']}). Training has diverged; "
                f"lower learning_rate (now {config.learning_rate}).",
            )
        self._on_step(step, values)
        if step % config.log_every == 0 or step == config.steps:
            now = time.perf_counter()
            steps, seconds = step - self._last, now - self._at
            values["tokens_per_second"] = config.row_length * config.batch * steps / seconds
            if self._peak is not None:
                values["mfu"] = self._operations * steps / seconds / self._peak
            self._last, self._at = step, now
            self._writer.write(step, **values)
        return values
