"""The file of reviews, to which verdicts are appended. A row is on the disk before its reviewer is told that it is kept."""

import os
import threading
from collections.abc import Sequence

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import is_local
from lmsi_jax.core.records import Record, dumps, read_jsonl
from lmsi_jax.core.text import clean


class Log:
    """A JSON Lines file that only grows.

    A process that is killed while it writes may leave an unfinished last line, whose writer was not told that it is kept. Such
    a line is removed when the file is opened.
    """

    def __init__(self, file: epath.Path):
        if not is_local(file):
            raise UserError(
                f"{file} is in a bucket, where rows cannot be appended. Copy the run to a disk, or name a local folder with "
                f"--output."
            )
        self.file, self._lock = file, threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        _cut_unfinished_line(file)

    def rows(self) -> list[Record]:
        """Return the rows of the file, or none when it does not exist yet."""
        return list(read_jsonl(self.file)) if self.file.exists() else []

    def append(self, rows: Sequence[Record]) -> None:
        """Append rows. They are on the disk when this returns."""
        content = "".join(clean(dumps(row)) + "\n" for row in rows).encode("utf-8")
        with self._lock, open(self.file, "ab") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def _cut_unfinished_line(file: epath.Path) -> None:
    if not file.exists():
        return
    with open(file, "rb+") as stream:
        content = stream.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            stream.truncate(end)
