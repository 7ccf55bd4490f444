"""An XProf trace of some steps of a stage."""

import os
from typing import Any


class Trace:
    """Traces steps `first` to `last`, counted from 1, into `folder/profile`; (0, 0) = none.

    `step` is called before each step; `start` says how many were done before this process came.
    """

    def __init__(self, steps: tuple[int, int], folder: os.PathLike | str, start: int = 0):
        self._first, self._last = steps
        self._folder, self._step, self._running = os.path.join(folder, "profile"), start, False

    def step(self, before: Any = None) -> None:
        """The next step begins; `before` is what the one before it returned, and is waited for where the trace ends."""
        import jax

        self._step += 1
        if self._running and self._step > self._last:
            jax.block_until_ready(before)
            self.close()
        elif self._first <= self._step <= self._last and not self._running:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # it crashes beside the threads that save a checkpoint
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._running = True

    def close(self) -> None:
        """End the trace, if there is one."""
        import jax

        if self._running:
            jax.profiler.stop_trace()
            self._running = False
