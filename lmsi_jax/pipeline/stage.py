"""A stage is a function from files to files. Its manifest, written last, records the inputs, settings and code."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from etils import epath

from lmsi_jax.core import clock, counters
from lmsi_jax.core.files import path_fingerprint, read_json, remove, write_text
from lmsi_jax.core.records import dumps, fingerprint
from lmsi_jax.core.settings import traced
from lmsi_jax.core.version import code_version
from lmsi_jax.pipeline.run_folder import Files, RunFolder
from lmsi_jax.sharding import processes


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run, which calls `run(runtime, settings, inputs, outputs, scratch)`.

    `run` writes the files of `outputs`. Its result depends only on the files of `inputs` and on `settings`, a dataclass that
    the manifest records. `scratch` is a folder for partial results: it belongs to exactly these inputs, settings and code,
    survives a kill, and is removed when the stage is done.
    """

    name: str  # "rounds/1/sample"
    run: Callable[[Any, Any, Files, Files, epath.Path], None]
    settings: Any
    inputs: Files
    outputs: Files
    on_mesh: bool = False  # all processes run it; otherwise only the first one does
    is_shared: bool = True  # whether other runs may reuse its outputs, which then depend only on inputs and settings
    by_row: str = ""  # the input whose rows are processed independently, so that the results of a row can be reused

    @property
    def short_name(self) -> str:
        """The last part of the name, such as "sample"."""
        return self.name.rpartition("/")[2]


class Ledger:
    """Knows which stages of a run are done. With `any_code`, the version of the code that ran a stage does not matter."""

    def __init__(self, folder: RunFolder, *, any_code: bool = False):
        self._folder, self._any_code = folder, any_code

    def _sources(self, stage: Stage) -> dict[str, Any]:
        inputs = {self._folder.label(path): path_fingerprint(path) for path in stage.inputs.values()}
        return {"inputs": inputs, "settings": traced(stage.settings), "version": code_version()}

    def why_stale(self, stage: Stage, predicted: Collection[epath.Path] = ()) -> str | None:
        """Return why a stage has to run, in words; None when it is done. Inputs that are `predicted` need not exist yet."""
        missing = [self._folder.label(path) for path in stage.inputs.values() if not (path in predicted or path.exists())]
        if missing:
            return f"waits for {', '.join(missing)}"
        manifest = self._folder.manifest(stage.name)
        if not manifest.exists() or any(path in predicted for path in stage.inputs.values()):
            return "not run yet"
        before, now = read_json(manifest), self._sources(stage)
        for source in ("inputs", "settings") if self._any_code else ("inputs", "settings", "version"):
            if before[source] != now[source]:
                return f"{source} changed: {_difference(before[source], now[source])}"
        lost = [self._folder.label(path) for path in stage.outputs.values() if not path.exists()]
        return f"output is missing: {', '.join(lost)}" if lost else None

    def mark_reused(self, stage: Stage) -> None:
        """Write the manifest of a stage whose outputs were taken from the store."""
        self._end(stage, {"stage": stage.name, **self._sources(stage), "seconds": 0.0, "times": {}, "reused": True})

    def execute(self, stage: Stage, runtime: Any, reusable: Sequence[Files] = ()) -> float:
        """Run a stage, write its manifest, and return the seconds it took. `reusable` are outputs whose rows it may reuse."""
        sources = processes.by_first(lambda: self._begin(stage))
        scratch = self._folder.scratch(stage.name) / fingerprint(sources)

        def run() -> None:
            stage.run(runtime.within(stage.name, reusable), stage.settings, stage.inputs, stage.outputs, scratch)

        before, worked, start = clock.spent(), counters.done(), clock.now()
        if stage.on_mesh:
            run()
        else:
            processes.by_first(run)
        seconds = clock.now() - start
        spent = {"seconds": round(seconds, 1), "times": clock.since(before, seconds), "work": counters.since(worked)}
        spent["devices"] = runtime.mesh.devices.size if stage.on_mesh else 0
        processes.by_first(lambda: self._end(stage, {"stage": stage.name, **sources, **spent}))
        return seconds

    def _begin(self, stage: Stage) -> dict[str, Any]:
        sources = self._sources(stage)
        self._folder.manifest(stage.name).unlink(missing_ok=True)
        return sources

    def _end(self, stage: Stage, manifest: dict[str, Any]) -> None:
        write_text(self._folder.manifest(stage.name), dumps(manifest) + "\n")
        remove(self._folder.scratch(stage.name))  # also that of earlier settings


def _difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(_difference(before.get(k), now.get(k), f"{path}.{k}".strip(".")) for k in changed[:4])
    return f"{path} {before!r:.60} -> {now!r:.60}".strip()
