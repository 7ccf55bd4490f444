"""Training state through Orbax: asynchronous, sharded, restored onto any mesh."""

import os
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN


class StateCheckpoints:
    """The newest two states of a run under one folder, and that of the lowest loss since the one before it.

    A save that was cut off is never taken for a good one. `about` goes into each state's `_CHECKPOINT_METADATA`.
    """

    def __init__(self, folder: os.PathLike | str, about: dict[str, Any] | None = None):
        kept = AnyPreservationPolicy([LatestN(n=2), BestN(get_metric_fn=lambda metrics: -metrics["loss"], n=1)])
        options = ocp.CheckpointManagerOptions(preservation_policy=kept, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(epath.Path(folder).resolve(), options=options)
        self._about = about or {}

    def restore_latest(self, abstract: Any) -> Any | None:
        """The newest state in the shapes and shardings of `abstract`, or None when there is none."""
        step = self._manager.latest_step()
        return None if step is None else self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def save(self, step: int, state: Any, loss: float | None = None) -> None:
        """Start saving; returns as soon as the arrays are copied."""
        if self._manager.latest_step() != step:
            metrics = None if loss is None else {"loss": loss}
            args = ocp.args.StandardSave(state)
            self._manager.save(step, args=args, metrics=metrics, custom_metadata={**self._about, "step": step})

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
