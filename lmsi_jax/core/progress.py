"""Progress of long stages: a bar on a terminal, plain lines at intervals elsewhere, and stack traces during a stall."""

import faulthandler
import sys
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from lmsi_jax.core.text import printable


class SafeConsole(Console):
    """A console that is safe for text of any origin, such as a model or a file.

    Control characters, which could command the terminal, and characters that its encoding lacks are printed as escapes.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        encoding = getattr(self.file, "encoding", None) or "utf-8"
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield segment._replace(text=text.encode(encoding, "backslashreplace").decode(encoding))


console = SafeConsole(highlight=False, soft_wrap=True, markup=False, emoji=False)
WIDE = 220  # columns, enough for a table of several tasks or models


def print_wide(table: RenderableType) -> None:
    """Print a table in full, whatever the width of the terminal: a truncated table is useless."""
    SafeConsole(width=WIDE, stderr=console.stderr, quiet=console.quiet, markup=False, emoji=False).print(table)


PLAIN_SECONDS = 15.0  # between two plain lines
STALL_SECONDS = 900.0  # without progress until all stacks are printed; a large program compiles for minutes


class ProgressBar:
    """``with ProgressBar("decode", 500) as bar: bar.update(done, "3.1k tok/s")``.

    After each STALL_SECONDS without an update, the stacks of all threads are printed to standard error. They show where a
    process waits for another process or for a disk. The process continues.
    """

    def __init__(self, title: str, total: int, done: int = 0):
        self._title, self._total, self._start_done = title, total, done
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not console.quiet:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
            )
            self._bar = Progress(*columns, console=SafeConsole(stderr=True))
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> "ProgressBar":
        self._watch()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._bar:
            self._bar.stop()

    def _watch(self) -> None:
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(STALL_SECONDS, repeat=True, file=sys.__stderr__)

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of the total are finished, followed by `note`."""
        self._watch()
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if not console.quiet and (now - self._last >= PLAIN_SECONDS or done == self._total):
            self._last = now
            rate = (done - self._start_done) / max(now - self._start, 1e-9)
            left = f", {(self._total - done) / rate:.0f} s left" if rate and done < self._total else ""
            print(f"{self._title}: {done}/{self._total}{left} {note}".rstrip(), file=sys.stderr, flush=True)
