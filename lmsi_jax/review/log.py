"""The file of reviews, to which verdicts are appended. A row is on the disk before its reviewer is told that it is kept."""

import os
import threading
from collections.abc import Sequence

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import is_local
from lmsi_jax.core.records import Record, dumps, is_record, read_growing
from lmsi_jax.core.text import clean


class Log:
    """A JSON Lines file that only grows. One process at a time may open it."""

    def __init__(self, file: epath.Path):
        if not is_local(file):
            raise UserError(f"{file} is in a bucket, where rows cannot be appended; copy the run to a disk to review it.")
        self.file, self._lock = file, threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        _end_last_line(file)

    def rows(self) -> list[Record]:
        """Return the rows of the file, or none when it does not exist yet."""
        return read_growing(self.file) if self.file.exists() else []

    def append(self, rows: Sequence[Record]) -> None:
        """Append rows. They are on the disk when this returns. When the disk refuses them, the file is as before."""
        content = "".join(clean(dumps(row)) + "\n" for row in rows).encode("utf-8")
        with self._lock, open(self.file, "ab", buffering=0) as stream:
            before = stream.tell()
            try:
                if stream.write(content) != len(content):
                    raise OSError(f"{self.file} could not be written in full")
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(before)
                raise


def _end_last_line(file: epath.Path) -> None:
    """End the last line if it is complete, and remove it otherwise: whoever wrote it was killed before it was confirmed."""
    if not file.exists():
        return
    content = file.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with open(file, "rb+") as stream:
            if is_record(content[end:]):
                stream.seek(0, os.SEEK_END)
                stream.write(b"\n")
            else:
                stream.truncate(end)
