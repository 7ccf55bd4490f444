"""Training state through Orbax: asynchronous, sharded, restored onto any mesh."""

import os
from typing import Any

import orbax.checkpoint as ocp
from etils import epath


class StateCheckpoints:
    """The newest two states of a run under one folder. A save that was cut off is never taken for a good one."""

    def __init__(self, folder: os.PathLike | str):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(epath.Path(folder).resolve(), options=options)

    def restore_latest(self, abstract: Any) -> Any | None:
        """The newest state in the shapes and shardings of `abstract`, or None when there is none."""
        step = self._manager.latest_step()
        return None if step is None else self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def save(self, step: int, state: Any) -> None:
        """Start saving; returns as soon as the arrays are copied."""
        if self._manager.latest_step() != step:
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
