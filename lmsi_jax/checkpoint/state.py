"""Training state through Orbax: asynchronous, sharded, restored onto any mesh."""

import os
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from lmsi_jax.core.files import absolute


class StateCheckpoints:
    """The newest two states of a run under one folder, and the one whose step had the lowest loss.

    A save that was cut off is never taken for a good one. `about` goes into each state's `_CHECKPOINT_METADATA`.
    """

    def __init__(self, folder: os.PathLike | str, about: dict[str, Any] | None = None):
        loss = lambda metrics: metrics["loss"]  # noqa: E731
        best = BestN(get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(n=2), best]),
            best_fn=loss,  # without it losses are not written down, and a later process knows no best
            best_mode="min",
            create=True,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(absolute(folder), options=options)
        # It would tell the runtime its own steps where `processes.stop_together` counts, and a SIGTERM would be lost.
        self._manager.reached_preemption = lambda step: False
        self._about = about or {}

    def restore_latest(self, abstract: Any) -> Any | None:
        """The newest state in the shapes and shardings of `abstract`, or None when there is none."""
        step = self._manager.latest_step()
        return None if step is None else self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def save(self, step: int, state: Any, loss: float) -> None:
        """Start saving; returns as soon as the arrays are copied."""
        if self._manager.latest_step() != step:
            args = ocp.args.StandardSave(state)
            self._manager.save(step, args=args, metrics={"loss": loss}, custom_metadata={**self._about, "step": step})

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
