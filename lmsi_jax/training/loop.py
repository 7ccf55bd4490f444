"""The training loop: rows in, parameters out; stops and goes on at any step."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lmsi_jax import model
from lmsi_jax.checkpoint.state import StateCheckpoints
from lmsi_jax.core import clock
from lmsi_jax.core.config import ModelConfig, TrainConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.metrics import MetricWriter
from lmsi_jax.formatting.packing import PackedRows
from lmsi_jax.sharding import Mesh, processes
from lmsi_jax.training.step import abstract_state, init_state, make_step, place_batch, place_prompts


def batch_rows(seed: int, step: int, num_rows: int, batch: int) -> np.ndarray:
    """The row numbers of one step: a pure function of (seed, step), so that a resumed run sees the same rows.

    Epochs are permutations of all rows, laid end to end.
    """
    position = np.arange(step * batch, (step + 1) * batch)
    epochs = position // num_rows
    order = {e: np.random.default_rng((seed, int(e))).permutation(num_rows) for e in np.unique(epochs)}
    return np.array([order[e][i] for e, i in zip(epochs, position % num_rows, strict=True)])


def _batches(rows: PackedRows, config: TrainConfig, seed: int, start: int, mesh: Mesh) -> Iterator[dict]:
    for step in range(start, config.steps):
        yield place_batch(mesh, rows.take(batch_rows(seed, step, len(rows), config.batch)))


def train(
    mesh: Mesh,
    model_config: ModelConfig,
    config: TrainConfig,
    params: model.Params,
    rows: PackedRows,
    *,
    seed: int,
    folder: os.PathLike | str,
    metrics_folder: os.PathLike | str,
    name: str,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> Any:
    """Train for `config.steps` steps from `params` and return what was trained; `params` stay as they are.

    That is a tree like theirs, or one of adapters (`config.lora`); `step.trained_model` makes the new model of it.

    State is kept under `folder` every `config.save_every` steps and a later call goes on from there. Each step is
    dispatched before the metrics of the step before are read, so that the device never waits for the host. A
    loss that is not finite stops the run with UserError, before it is saved.
    """
    if len(rows) == 0:
        raise UserError("There is nothing to train on: no path was kept. Look at votes.jsonl for the reason codes.")
    checkpoints = StateCheckpoints(folder)
    state = checkpoints.restore_latest(abstract_state(mesh, model_config, config))
    if state is None:
        state = init_state(mesh, model_config, config, params, seed)
    start = int(state.step)
    step_fn, frozen = make_step(model_config, config), params if config.lora.rank else {}
    prompts, pending = place_prompts(mesh, rows.prompts), None
    log = _Log(config, MetricWriter(metrics_folder, name, resume_step=start), name, folder, start, on_step)
    try:
        for step, batch in enumerate(_batches(rows, config, seed, start, mesh), start=start + 1):
            with _traced(config.profile, step, metrics_folder):
                state, metrics = step_fn(state, batch, frozen, prompts)
                if step == config.profile[1]:
                    jax.block_until_ready(metrics)
            if pending:
                log.settle(*pending)
            pending = (step, metrics)
            if step % config.save_every == 0 or step == config.steps:
                log.settle(*pending)
                pending = None
                checkpoints.save(step, state)
    except BaseException as stop:
        # Ctrl-C or a preemption: keep what was trained. An error of the training itself is not saved over a good state.
        if not isinstance(stop, Exception) and processes.count() == 1:  # several would have to save together
            checkpoints.save(int(state.step), state)
        raise
    finally:
        checkpoints.close()
        log.writer.close()
    return state.params


class _Log:
    """Reads what steps measured, once it is there: for the caller, for the metrics, and to stop what has diverged."""

    def __init__(
        self,
        config: TrainConfig,
        writer: MetricWriter,
        name: str,
        folder: os.PathLike | str,
        start: int,
        on_step: Callable[[int, dict[str, float]], None],
    ):
        self.writer = writer
        self._config, self._name, self._folder, self._on_step = config, name, folder, on_step
        self._last, self._at = start, time.perf_counter()

    def settle(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Values of one step; raises UserError where they are not finite."""
        config = self._config
        with clock.spend("train"):
            values = {key: float(value) for key, value in metrics.items()}
        if not np.isfinite(values["loss"]) or not np.isfinite(values["grad_norm"]):
            raise UserError(
                f"{self._name}: the loss at step {step} is {values['loss']} (gradient norm {values['grad_norm']}). Training "
                f"has diverged; lower learning_rate (now {config.learning_rate}). The last good state is in {self._folder}."
            )
        self._on_step(step, values)
        if step % config.log_every == 0 or step == config.steps:
            now, tokens = time.perf_counter(), config.row_length * config.batch * (step - self._last)
            values["tokens_per_second"] = tokens / (now - self._at)
            self._last, self._at = step, now
            self.writer.write(step, **values)


@contextlib.contextmanager
def _traced(steps: tuple[int, int], step: int, folder: os.PathLike | str) -> Iterator[None]:
    """An XProf trace from the first of `steps` to the end of the last."""
    if step == steps[0]:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # it crashes beside the threads that save a checkpoint
        jax.profiler.start_trace(os.path.join(folder, "profile"), profiler_options=options)
    yield
    if step == steps[1]:
        jax.profiler.stop_trace()
