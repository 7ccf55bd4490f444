"""An XProf trace of some steps of a stage."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from etils import epath

from lmsi_jax.core.files import is_local


class Trace:
    """Traces the steps (first, last), counted from 1, into `folder/profile`; (0, 0) traces none.

    The caller calls `step` before each step. `start` is the number of steps completed before this process. The profiler
    writes only to a local disk, so a trace for a bucket is copied there when it ends.
    """

    def __init__(self, steps: tuple[int, int], folder: os.PathLike | str, start: int = 0):
        self._first, self._last = steps
        self._target, self._step = epath.Path(folder) / "profile", start
        self._local = ""  # the folder that a running trace is written to

    def step(self, before: Any = None) -> None:
        """Begin the next step. `before` is the result of the previous step, which is waited for if the trace ends with it."""
        import jax

        self._step += 1
        if self._local and self._step > self._last:
            jax.block_until_ready(before)
            self.close()
        elif self._first <= self._step <= self._last and not self._local:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # it crashes while other threads save a checkpoint
            self._local = os.fspath(self._target) if is_local(self._target) else tempfile.mkdtemp(prefix="lmsi-profile-")
            jax.profiler.start_trace(self._local, profiler_options=options)

    def close(self) -> None:
        """End the trace, if one is running."""
        import jax

        if not self._local:
            return
        jax.profiler.stop_trace()
        if not is_local(self._target):
            for file in (path for path in Path(self._local).rglob("*") if path.is_file()):
                (self._target / file.relative_to(self._local).as_posix()).write_bytes(file.read_bytes())
            shutil.rmtree(self._local)
        self._local = ""
