"""Metrics of a run, step by step: JSON Lines and TensorBoard events, on a disk or in a bucket."""

import json
import os
import time
from collections.abc import Callable, Mapping

from etils import epath

from lmsi_jax.core.files import GrowingFile, is_local, write_bytes
from lmsi_jax.core.records import Record, dumps

mirrors: list[Callable[[str, int, Mapping[str, float]], None]] = []  # called with each row: name of the file, step, scalars


class MetricWriter:
    """Writes scalars to a JSON Lines file, and to TensorBoard events in the folder `tensorboard` beside it.

    The file may be in a bucket. When it is reopened after an interruption, rows after `resume_step` are dropped, so that no
    step occurs twice. Only the first of several processes writes.
    """

    def __init__(self, file: epath.Path, resume_step: int = 0):
        import jax
        from tensorboardX import SummaryWriter, record_writer

        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        kept = [json.dumps(row) + "\n" for row in read_metrics(file) if row["step"] <= resume_step]
        self._rows = GrowingFile(file, "".join(kept))
        if not is_local(file):
            record_writer.register_writer_factory(os.fspath(file).partition(":")[0], _BucketEvents)
        self._name = file.stem
        events = file.parent / "tensorboard" / file.stem
        self._board = SummaryWriter(os.fspath(events), purge_step=resume_step + 1)

    def write(self, step: int, **scalars: float) -> None:
        """Write one row; values are Python floats."""
        if not self._writes:
            return
        self._rows.add(dumps({"step": step, "time": round(time.time(), 3), **scalars}))
        for tag, value in scalars.items():
            self._board.add_scalar(tag, value, step)
        for mirror in mirrors:
            mirror(self._name, step, scalars)

    def close(self) -> None:
        if not self._writes:
            return
        self._rows.close()
        self._board.close()


def read_metrics(file: epath.Path) -> list[Record]:
    """Return the rows of a metrics file, or none without a file. A last line that a kill cut off is left out."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


class _BucketEvents:
    """A file of TensorBoard events in a bucket, for tensorboardX. It is uploaded in full at each flush."""

    def __init__(self, path: str):
        self._path, self._content, self._uploaded = epath.Path(path), bytearray(), 0

    @classmethod
    def open(cls, path: str) -> "_BucketEvents":
        return cls(path)

    @staticmethod
    def directory_check(path: str) -> None:
        """Do nothing: a bucket has no folders to create."""

    def write(self, content: bytes) -> None:
        self._content += content

    def flush(self) -> None:
        if len(self._content) > self._uploaded:
            write_bytes(self._path, bytes(self._content))
            self._uploaded = len(self._content)

    close = flush
