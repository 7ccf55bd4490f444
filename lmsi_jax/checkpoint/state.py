"""Training state on disk through Orbax: saved asynchronously in shards, and restored onto any mesh."""

import os
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from lmsi_jax.core.files import absolute


class StateCheckpoints:
    """The two newest states of a run in one folder, and the one with the lowest or highest `metric` (`mode`: "min", "max").

    An interrupted save is never restored. `about` is stored in the `_CHECKPOINT_METADATA` of each state.
    """

    def __init__(self, folder: os.PathLike | str, about: dict[str, Any] | None = None, metric: str = "loss", mode: str = "min"):
        worst = float("inf") if mode == "min" else float("-inf")
        value = lambda metrics: metrics.get(metric, worst)  # noqa: E731
        best = BestN(get_metric_fn=value, reverse=mode == "min", n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(n=2), best]),
            best_fn=value,  # otherwise no metrics are stored, and a later process knows no best state
            best_mode=mode,
            create=True,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(absolute(folder), options=options)
        # Orbax would report its own steps to the runtime beside those of `processes.stop_together`, and lose a SIGTERM.
        self._manager.reached_preemption = lambda step: False
        self._about = about or {}

    def restore_latest(self, abstract: Any) -> Any | None:
        """Return the newest state with the shapes and shardings of `abstract`, or None when there is none."""
        return self._restore(self._manager.latest_step(), abstract)

    def restore_best(self, abstract: Any) -> Any:
        """Return the state with the best value of the metric, with the shapes and shardings of `abstract`."""
        self._manager.wait_until_finished()
        return self._restore(self._manager.best_step(), abstract)

    def _restore(self, step: int | None, abstract: Any) -> Any | None:
        return None if step is None else self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def save(self, step: int, state: Any, metrics: Mapping[str, float]) -> None:
        """Start a save, and return as soon as the arrays are copied. A step that is saved already is skipped."""
        if self._manager.latest_step() != step:
            args = ocp.args.StandardSave(state)
            self._manager.save(step, args=args, metrics=dict(metrics), custom_metadata={**self._about, "step": step})

    def close(self) -> None:
        """Wait until all saves are on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
