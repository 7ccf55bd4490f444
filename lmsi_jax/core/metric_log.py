"""What a run measures, step by step: JSON Lines and TensorBoard events, on a disk or in a bucket."""

import json
import os
import time

from etils import epath

from lmsi_jax.core.files import GrowingFile, is_local, write_bytes
from lmsi_jax.core.records import Record, dumps


class MetricWriter:
    """Scalars to `metrics/<name>.jsonl` and, beside it, TensorBoard events; the folder may be in a bucket.

    Reopening after an interruption drops the rows after `resume_step`, so that no step is there twice. Of several
    processes only the first writes.
    """

    def __init__(self, folder: os.PathLike | str, name: str, resume_step: int = 0):
        import jax
        from tensorboardX import SummaryWriter, record_writer

        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        path = epath.Path(folder) / f"{name}.jsonl"
        kept = [json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] <= resume_step]
        self._rows = GrowingFile(path, "".join(kept))
        if not is_local(path):
            record_writer.register_writer_factory(os.fspath(path).partition(":")[0], _BucketEvents)
        events = epath.Path(folder) / "tensorboard" / name
        self._board = SummaryWriter(os.fspath(events), purge_step=resume_step + 1)

    def write(self, step: int, **scalars: float) -> None:
        """Record one row; values are Python floats."""
        if not self._writes:
            return
        self._rows.add(dumps({"step": step, "time": round(time.time(), 3), **scalars}))
        for tag, value in scalars.items():
            self._board.add_scalar(tag, value, step)

    def close(self) -> None:
        if not self._writes:
            return
        self._rows.close()
        self._board.close()


def read_metrics(file: epath.Path) -> list[Record]:
    """The rows of a metrics file, none where there is no file. A last line that a kill cut off is left out."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


class _BucketEvents:
    """A file of TensorBoard events in a bucket, as tensorboardX opens one: uploaded whole at each flush."""

    def __init__(self, path: str):
        self._path, self._content, self._uploaded = epath.Path(path), bytearray(), 0

    @classmethod
    def open(cls, path: str) -> "_BucketEvents":
        return cls(path)

    @staticmethod
    def directory_check(path: str) -> None:
        """A bucket has no folders to make."""

    def write(self, content: bytes) -> None:
        self._content += content

    def flush(self) -> None:
        if len(self._content) > self._uploaded:
            write_bytes(self._path, bytes(self._content))
            self._uploaded = len(self._content)

    close = flush
