"""A store of finished stages, which runs share. Outputs are stored under a fingerprint of the inputs, settings and function.

An entry is a folder with the outputs, under the names that the stage gives them, and `entry.json`, which is written last. Files
are copied into a run, so that an edit of a run does not change the store. The files of a checkpoint folder are hard-linked
instead where the file system supports it. An entry whose outputs have changed since they were stored is not used.

A stage that works row by row reuses the stored results of rows that it has in common with an entry. Its paths are then those of
the earlier run. If they were sampled again, in another batch, the last digit of a log-probability might differ.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from lmsi_jax.core import files
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import fingerprint
from lmsi_jax.core.settings import traced
from lmsi_jax.core.version import code_version
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage

ENTRY, METRICS = "entry.json", "metrics"
WHOLE = "stage"  # prefix of an entry's metrics files; it stands for the name that the stage had in its run
DAY = 86_400.0  # seconds


@dataclasses.dataclass(frozen=True)
class Entry:
    """A finished stage in the store."""

    folder: epath.Path
    stage: str
    outputs: dict[str, str]  # fingerprints by name
    version: str  # of the code that ran the stage
    rows: str  # equal for stages that differ only in the rows of an input; "" for a stage that does not work row by row
    used: float  # when it was last used, in seconds since 1970

    @property
    def size(self) -> int:
        """The bytes of all of its files."""
        return sum(file.stat().length for file in files.walk(self.folder))


class Store:
    """The entries in one folder, or a store without entries if the folder is None.

    With `any_code`, entries of another version of the code are valid too.
    """

    def __init__(self, root: epath.Path | None, *, any_code: bool = False):
        self._root, self._any_code = root, any_code

    def entries(self) -> Iterator[Entry]:
        """Yield all complete entries."""
        for folder in sorted(self._root.iterdir()) if self._root and self._root.exists() else ():
            if entry := self._read(folder):
                yield entry

    def _read(self, folder: epath.Path) -> Entry | None:
        file = folder / ENTRY
        if not file.exists() or files.is_unfinished(folder):
            return None
        about = files.read_json(file)
        return Entry(folder, about["stage"], about["outputs"], about["version"], about["rows"], float(file.stat().mtime))

    def find(self, stage: Stage, predicted: Mapping[epath.Path, str]) -> Entry | None:
        """Return the valid entry of a stage, or None. `predicted` gives fingerprints of inputs that do not exist yet."""
        if not (self._root and stage.is_shared):
            return None
        entry = self._read(self._root / _key(stage, predicted))
        return entry if entry and self._valid(entry, stage) else None

    def _valid(self, entry: Entry, stage: Stage) -> bool:
        if entry.version != code_version() and not self._any_code:
            return False
        return entry.outputs.keys() == stage.outputs.keys() and all(
            (entry.folder / name).exists() and files.path_fingerprint(entry.folder / name) == digest
            for name, digest in entry.outputs.items()
        )

    def fetch(self, entry: Entry, stage: Stage, folder: RunFolder) -> None:
        """Copy the outputs of an entry, and their metrics, into a run. The entry then counts as just used."""
        for name, output in stage.outputs.items():
            _copy(entry.folder / name, output)
        for file in (entry.folder / METRICS).glob("*.jsonl") if (entry.folder / METRICS).exists() else ():
            _copy(file, folder.stage_metrics(stage.name, file.stem.removeprefix(WHOLE).removeprefix("-")))
        if files.is_local(entry.folder):
            os.utime(entry.folder / ENTRY)

    def publish(self, stage: Stage, folder: RunFolder) -> None:
        """Store the outputs and metrics of a stage that a run has finished, unless the stage is not shared."""
        if not (self._root and stage.is_shared):
            return
        target = self._root / _key(stage)
        place = files.begin_folder(target)
        for name, output in stage.outputs.items():
            _copy(output, place / name)
        name = folder.stage_metrics(stage.name).stem
        for file in folder.metrics.glob(f"{name}*.jsonl") if folder.metrics.exists() else ():
            _copy(file, place / METRICS / f"{WHOLE}{file.stem.removeprefix(name)}.jsonl")
        outputs = {name: files.path_fingerprint(output) for name, output in stage.outputs.items()}
        about = {"stage": stage.name, "outputs": outputs, "version": code_version(), "rows": _key(stage, by_row=True)}
        files.write_text(place / ENTRY, json.dumps(about, indent=2) + "\n")
        files.publish_folder(place, target)

    def reusable(self, stage: Stage) -> list[dict[str, epath.Path]]:
        """Return the outputs of entries that differ from `stage` only in the rows of its `by_row` input, last used last."""
        wanted = _key(stage, by_row=True)
        entries = [entry for entry in self.entries() if wanted and entry.rows == wanted and self._valid(entry, stage)]
        entries.sort(key=lambda entry: entry.used)
        return [{name: entry.folder / name for name in entry.outputs} for entry in entries]

    def prune(self, days: int) -> list[Entry]:
        """Remove the entries that were not used for this number of days, and return them."""
        before = time.time() - days * DAY
        old = [entry for entry in self.entries() if entry.used <= before]
        for entry in old:
            files.remove(entry.folder)
        return old


def _key(stage: Stage, predicted: Mapping[epath.Path, str] | None = None, *, by_row: bool = False) -> str:
    """Return a fingerprint of a stage's function, inputs and settings; `by_row` leaves out the input that is read by row."""
    if by_row and not stage.by_row:
        return ""
    read = {name: path for name, path in stage.inputs.items() if not (by_row and name == stage.by_row)}
    inputs = {name: (predicted or {}).get(path) or files.path_fingerprint(path) for name, path in read.items()}
    body: Any = f"{stage.run.__module__}.{stage.run.__qualname__}"
    return fingerprint(body, inputs, traced(stage.settings))


def _copy(source: epath.Path, target: epath.Path) -> None:
    """Copy a file or a folder. The files of a folder are hard-linked where possible."""
    if not source.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(target, source.read_bytes())
        return
    place = files.begin_folder(target)
    for file in files.walk(source):
        copy = place / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not _link(file, copy):
            files.write_bytes(copy, file.read_bytes())
    files.publish_folder(place, target)


def _link(source: epath.Path, target: epath.Path) -> bool:
    """Create a hard link, and return whether the file system could."""
    if not (files.is_local(source) and files.is_local(target)):
        return False
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def default_store(workdir: epath.Path) -> epath.Path | None:
    """Return the store beside a work directory; None in a bucket, where a copy costs as much as it saves."""
    return workdir.parent / ".store" if files.is_local(workdir) else None


def open_store(name: str | None, workdir: epath.Path, *, any_code: bool = False) -> Store:
    """Return the store of --store: a folder, "none" for no store, or by default the one beside the work directory."""
    root = None if name == "none" else epath.Path(name) if name else default_store(workdir)
    if root is not None and root.exists() and not root.is_dir():
        raise UserError(f"--store={root} is a file; name a folder, or none.")
    return Store(root, any_code=any_code)
