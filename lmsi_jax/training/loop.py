"""The training loop, for any objective, batches, trainable arrays and hooks. It can stop and resume at any step."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from lmsi_jax.checkpoint.state import StateCheckpoints
from lmsi_jax.core.errors import Terminated, UserError
from lmsi_jax.core.files import remove, write_bytes
from lmsi_jax.core.metric_log import MetricWriter, read_metrics
from lmsi_jax.core.profile import Trace
from lmsi_jax.core.records import Record
from lmsi_jax.core.version import describe
from lmsi_jax.model import transformer
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.training.batches import Batches
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.hooks import Best, Hook, Stop, never
from lmsi_jax.training.log import Diverged, OnStep, StepLog, Work
from lmsi_jax.training.objective import Batch, Objective, place_batch
from lmsi_jax.training.step import TrainState, abstract_state, init_state, make_step
from lmsi_jax.training.trainable import Trainable


@dataclasses.dataclass(frozen=True)
class Run:
    """The devices, files and callbacks of a training run.

    Attributes:
      mesh: the devices.
      seed: the seed that adapters are initialised with.
      checkpoints: the folder of saved training states, from which a later call resumes.
      metrics: the metrics file. Error messages begin with its name without the suffix.
      work: the work of one step, for the speeds in the metrics; None where steps differ.
      best: the metric by which the best state is kept.
      stop: decides whether training ends before its last step.
      on_step: called with the number and the values of each step.
    """

    mesh: Mesh
    seed: int
    checkpoints: epath.Path
    metrics: epath.Path
    work: Work | None
    best: Best = Best()
    stop: Stop = never
    on_step: OnStep = lambda step, values: None


def train(
    objective: Objective,
    batches: Batches,
    trainable: Trainable,
    hooks: Sequence[Hook],
    params: transformer.Params,
    config: UpdateConfig,
    run: Run,
) -> Any:
    """Train for up to `config.steps` steps from `params` and return the trained arrays; `params` are not changed.

    `trainable.merged` turns the trained arrays into the parameters of a model. The state is saved every `config.save_every`
    steps, and a later call resumes from the latest saved state. Each step is dispatched before the metrics of the previous
    step are read, so that the device never waits for the host. Raises UserError when the loss or the gradient norm of a step
    is not finite; the state after that step is not saved.
    """
    loop = _Loop(objective, params, config, run, batches, trainable, hooks)
    try:
        loop.run_steps()
        return loop.result()
    except Diverged as error:
        folder = loop.keep_diverged(error.step)
        raise UserError(
            f"{run.metrics.stem}: {error} Earlier states are in {run.checkpoints}; the state before that step and its batch "
            f"are in {folder}."
        ) from error
    except (KeyboardInterrupt, Terminated) as stop:
        loop.save_interrupted(stop)
        raise
    finally:
        loop.close()


class _Loop:
    """A training run between two steps. The arguments are those of `train`."""

    def __init__(self, objective: Objective, params: transformer.Params, config: UpdateConfig, run: Run, *rest: Any):
        self._config, self._run = config, run
        self._batches, self._trainable, self._hooks = rest
        about = {"seed": run.seed, "config": dataclasses.asdict(config), "git": describe()}
        self._checkpoints = StateCheckpoints(run.checkpoints, about, run.best.metric, run.best.mode)
        self._state: TrainState = self._checkpoints.restore_latest(self._abstract()) or init_state(
            run.mesh, self._trainable, config, params, run.seed
        )
        self._start = int(self._state.step)
        self._step_fn, self._frozen = make_step(objective, self._trainable, config), self._trainable.frozen(params)
        rows = read_metrics(run.metrics)
        self._history: list[Record] = [row for row in rows if row["step"] <= self._start and self._due(row["step"])]
        self._writer = MetricWriter(run.metrics, resume_step=self._start)
        self._trace = Trace(config.profile, run.metrics.parent, self._start)
        self._log = StepLog(run.mesh, config, run.work, self._writer, self._start, run.on_step)
        self._last: tuple[int, Mapping[str, Any]] | None = None  # the latest step and its metrics
        self._unread: tuple[int, Mapping[str, Any]] | None = None

    def _abstract(self) -> TrainState:
        return abstract_state(self._run.mesh, self._trainable, self._config)

    def _model(self) -> Any:
        """Return what the objective computes with now. It is valid until the next step, which donates its arrays."""
        return self._trainable.model(self._frozen, self._state.params)

    def run_steps(self) -> None:
        """Run the steps after the restored one, up to the last step or until `Run.stop` returns True."""
        for step in range(self._start + 1, self._config.steps + 1):
            if self._run.stop(self._history):
                return
            self._trace.step(self._unread)
            batch = place_batch(self._run.mesh, self._batches(step, self._model))
            self._state, metrics = self._step_fn(self._state, batch, self._frozen)
            unread, self._last = self._unread, (step, metrics)
            if unread:
                self._read(*unread)
            self._unread = self._last
            self._measure_and_save(step)
            processes.stop_together()

    def _due(self, step: int) -> list[Hook]:
        return [hook for hook in self._hooks if hook.due(step, self._config.steps)]

    def _read(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        values = self._log.read(step, metrics)
        self._log.write(step, values)
        return values

    def _measure_and_save(self, step: int) -> None:
        """Run the hooks that are due after `step`, and save the state when a save is due."""
        config = self._config
        due = self._due(step)
        saves = step % config.save_every == 0 or step == config.steps
        if not (due or saves):
            return
        assert self._unread is not None
        values, self._unread = self._log.read(*self._unread), None
        for hook in due:
            values |= hook.measure(self._model(), step)
        self._last = (step, values)
        self._log.write(step, values, measured=bool(due))
        if due:
            self._history.append({"step": step, **values})
        if saves or self._run.stop(self._history):
            self._checkpoints.save(step, self._state, values)

    def result(self) -> Any:
        """Return the trained arrays of the last state, or of the best one."""
        best = self._run.best
        if not (best.return_best or best.if_stopped and self._run.stop(self._history)):
            return self._state.params
        if self._last and best.metric not in (names := {*self._last[1]}.union(*self._history)):
            raise UserError(
                f"No step measured '{best.metric}', by which the best state is kept; there are {', '.join(sorted(names))}."
            )
        return self._checkpoints.restore_best(self._abstract()).params

    def save_interrupted(self, stop: BaseException) -> None:
        """Save the state after the latest step.

        An interrupt during a step leaves only donated arrays. Nothing is saved then, and the next start resumes from the
        last save.
        """
        together = processes.count() == 1 or isinstance(stop, Terminated)  # several processes save only when all of them stop
        if not (together and self._last) or self._state.step.is_deleted() or not self._state.finite:
            return
        step, metrics = self._last
        is_measured = not self._due(step) or (self._history and self._history[-1]["step"] == step)
        if step == int(self._state.step) and is_measured:  # a state whose hooks have not run is computed again
            self._checkpoints.save(step, self._state, {name: float(value) for name, value in metrics.items()})

    def keep_diverged(self, step: int) -> epath.Path:
        """Write the state before a step with a non-finite loss, and the batch of that step (`batch.npz`); return the folder."""
        folder = self._run.checkpoints.parent / "diverged"
        processes.by_first(lambda: remove(folder))
        before = StateCheckpoints(folder)
        before.save(step - 1, dataclasses.replace(self._state, finite=self._state.step >= 0), {"loss": float("inf")})
        before.close()
        batch: Batch = self._batches(step, self._model)
        shared = processes.to_host([batch.shared.tokens, batch.shared.length]) if batch.shared else ()
        if processes.is_first():
            arrays: dict[str, Any] = {**batch.rows, **dict(zip(("prompt_tokens", "prompt_length"), shared, strict=False))}
            packed = io.BytesIO()
            np.savez(packed, **arrays)
            write_bytes(folder / "batch.npz", packed.getvalue())
        return folder

    def close(self) -> None:
        self._checkpoints.close()
        self._writer.close()
        self._trace.close()
