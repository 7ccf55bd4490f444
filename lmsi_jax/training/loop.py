"""The training loop: rows in, parameters out; stops and goes on at any step."""

import dataclasses
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from lmsi_jax import model
from lmsi_jax.checkpoint.state import StateCheckpoints
from lmsi_jax.core.config import ModelConfig, TrainConfig
from lmsi_jax.core.errors import Terminated, UserError
from lmsi_jax.core.files import remove, write_bytes
from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.profile import Trace
from lmsi_jax.core.version import describe
from lmsi_jax.formatting.packing import PackedRows
from lmsi_jax.sharding import Mesh, processes
from lmsi_jax.training.log import Diverged, StepLog
from lmsi_jax.training.step import SharedPrompts, abstract_state, init_state, make_step, place_batch, place_prompts


def batch_rows(seed: int, step: int, num_rows: int, batch: int) -> np.ndarray:
    """The row numbers of one step: a pure function of (seed, step), so that a resumed run sees the same rows.

    Epochs are permutations of all rows, laid end to end.
    """
    position = np.arange(step * batch, (step + 1) * batch)
    epochs = position // num_rows
    order = {e: np.random.default_rng((seed, int(e))).permutation(num_rows) for e in np.unique(epochs)}
    return np.array([order[e][i] for e, i in zip(epochs, position % num_rows, strict=True)])


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
    about = {"seed": seed, "config": dataclasses.asdict(config), "git": describe()}
    checkpoints = StateCheckpoints(folder, about)
    state = checkpoints.restore_latest(abstract_state(mesh, model_config, config)) or init_state(
        mesh, model_config, config, params, seed
    )
    start = int(state.step)
    step_fn, frozen = make_step(model_config, config), params if config.lora.rank else {}
    prompts, pending, metrics = place_prompts(mesh, rows.prompts), None, None
    writer = MetricWriter(metrics_folder, name, resume_step=start)
    trace = Trace(config.profile, metrics_folder, start)
    log = StepLog(mesh, model_config, config, rows, writer, start, on_step)

    def batch_of(step: int) -> dict[str, np.ndarray]:
        return rows.take(batch_rows(seed, step - 1, len(rows), config.batch))

    try:
        for step in range(start + 1, config.steps + 1):
            trace.step(pending)
            state, metrics = step_fn(state, place_batch(mesh, batch_of(step)), frozen, prompts)
            if pending:
                log.read(*pending)
            pending = (step, metrics)
            if step % config.save_every == 0 or step == config.steps:
                loss, pending = log.read(*pending)["loss"], None
                checkpoints.save(step, state, loss)
            processes.stop_together()
    except Diverged as error:
        kept = _keep_diverged(epath.Path(folder).parent, error.step, state, batch_of(error.step), prompts)
        raise UserError(
            f"{name}: {error} What was saved before is in {folder}; the state before that step and its batch are in {kept}."
        ) from error
    except (KeyboardInterrupt, Terminated) as stop:
        together = processes.count() == 1 or isinstance(stop, Terminated)  # several save where all of them stop
        # Of a stop in the middle of a call the state is gone: the next start goes on from the last save.
        if together and metrics and not state.step.is_deleted() and state.finite:
            checkpoints.save(int(state.step), state, float(metrics["loss"]))
        raise
    finally:
        checkpoints.close()
        writer.close()
        trace.close()
    return state.params


def _keep_diverged(
    parent: epath.Path, step: int, state: Any, batch: dict[str, np.ndarray], prompts: SharedPrompts | None
) -> epath.Path:
    """Write down what a step that came to nothing was given: the state before it, and `batch.npz`; returns the folder."""
    folder = parent / "diverged"
    processes.by_first(lambda: remove(folder))
    before = StateCheckpoints(folder)
    before.save(step - 1, dataclasses.replace(state, finite=state.step >= 0), float("inf"))
    before.close()
    shared = processes.to_host([prompts.tokens, prompts.length]) if prompts else ()
    if processes.is_first():
        arrays: dict[str, Any] = {**batch, **dict(zip(("prompt_tokens", "prompt_length"), shared, strict=False))}
        packed = io.BytesIO()
        np.savez(packed, **arrays)
        write_bytes(folder / "batch.npz", packed.getvalue())
    return folder
