"""Means that add up exactly over microbatches and hosts, and a writer for what a run measures."""

import json
import os
import time

from flax import struct
from jaxtyping import Array, Float

from lmsi_jax.core.records import write_text


@struct.dataclass
class Mean:
    """A mean kept as (sum, count), so that partial means combine without error."""

    total: Float[Array, ""]
    count: Float[Array, ""]

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> Float[Array, ""]:
        return self.total / self.count


class MetricWriter:
    """Scalars to `metrics/<name>.jsonl` and, beside it, TensorBoard events.

    Reopening after an interruption drops the rows after `resume_step`, so that no step is there twice. Of several
    processes only the first writes.
    """

    def __init__(self, folder: os.PathLike | str, name: str, resume_step: int = 0):
        import jax
        from tensorboardX import SummaryWriter

        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        os.makedirs(folder, exist_ok=True)
        self._path = os.path.join(folder, f"{name}.jsonl")
        if os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                whole = [line for line in file if line.endswith("\n")]
            write_text(self._path, "".join(line for line in whole if json.loads(line)["step"] <= resume_step))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close())
        self._board = SummaryWriter(os.path.join(folder, "tensorboard", name), purge_step=resume_step + 1)

    def write(self, step: int, **scalars: float) -> None:
        """Record one row; values are Python floats."""
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **scalars}) + "\n")
        self._file.flush()
        for tag, value in scalars.items():
            self._board.add_scalar(tag, value, step)

    def close(self) -> None:
        if not self._writes:
            return
        self._file.close()
        self._board.close()
