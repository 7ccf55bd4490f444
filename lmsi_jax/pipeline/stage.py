"""A stage is a function from files to files; its manifest, written last, says what it was made from."""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

from etils import epath

from lmsi_jax.core import clock
from lmsi_jax.core.files import path_fingerprint, read_json, remove, write_text
from lmsi_jax.core.records import dumps, fingerprint
from lmsi_jax.core.version import code_version
from lmsi_jax.sharding import processes


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run. `run(scratch)` reads `inputs` and writes `outputs`.

    `scratch` is a folder for partial results. It belongs to exactly these inputs and settings, outlives a kill, and is
    removed when the stage is done.
    """

    name: str  # "rounds/1/sample"
    inputs: tuple[epath.Path, ...]
    outputs: tuple[epath.Path, ...]
    settings: dict[str, Any]  # what else the result depends on
    run: Callable[[epath.Path], None]
    on_mesh: bool = False  # every process takes part; else the first one alone

    @property
    def kind(self) -> str:
        return self.name.rpartition("/")[2]


class Ledger:
    """Which stages of a work directory are done. With `any_code` a stage that only other code made is done too."""

    def __init__(self, workdir: epath.Path, *, any_code: bool = False):
        self._workdir, self._any_code = workdir, any_code

    def _manifest(self, stage: Stage) -> epath.Path:
        return self._workdir / "manifests" / f"{stage.name.replace('/', '-')}.json"

    def _sources(self, stage: Stage) -> dict[str, Any]:
        inputs = {self._label(path): path_fingerprint(path) for path in stage.inputs}
        settings = json.loads(json.dumps(stage.settings))
        return {"inputs": inputs, "settings": settings, "version": code_version()}

    def _label(self, path: epath.Path) -> str:
        return str(path.relative_to(self._workdir)) if path.is_relative_to(self._workdir) else str(path)

    def why_stale(self, stage: Stage) -> str | None:
        """Why a stage has to run, in words; None when it is done."""
        missing = [self._label(path) for path in stage.inputs if not path.exists()]
        if missing:
            return f"waits for {', '.join(missing)}"
        manifest = self._manifest(stage)
        if not manifest.exists():
            return "not run yet"
        before, now = read_json(manifest), self._sources(stage)
        for what in ("inputs", "settings") if self._any_code else ("inputs", "settings", "version"):
            if before[what] != now[what]:
                return f"{what} changed: {_difference(before[what], now[what])}"
        gone = [self._label(path) for path in stage.outputs if not path.exists()]
        return f"output is gone: {', '.join(gone)}" if gone else None

    def execute(self, stage: Stage) -> float:
        """Run a stage and write its manifest; returns the seconds it took."""
        sources = processes.by_first(lambda: self._begin(stage))
        scratch = self._scratch(stage) / fingerprint(sources)

        def run() -> None:
            stage.run(scratch)

        before, start = clock.spent(), time.perf_counter()
        if stage.on_mesh:
            run()
        else:
            processes.by_first(run)
        seconds = time.perf_counter() - start
        times = {"seconds": round(seconds, 1), "times": clock.since(before, seconds)}
        processes.by_first(lambda: self._end(stage, {"stage": stage.name, **sources, **times}))
        return seconds

    def _scratch(self, stage: Stage) -> epath.Path:
        """Partial results of a stage, by what they are made from."""
        return self._workdir / "scratch" / stage.name.replace("/", "-")

    def _begin(self, stage: Stage) -> dict[str, Any]:
        sources = self._sources(stage)
        self._manifest(stage).unlink(missing_ok=True)
        return sources

    def _end(self, stage: Stage, manifest: dict[str, Any]) -> None:
        write_text(self._manifest(stage), dumps(manifest) + "\n")
        remove(self._scratch(stage))  # of earlier settings too


def _difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(_difference(before.get(k), now.get(k), f"{path}.{k}".strip(".")) for k in changed[:4])
    return f"{path} {before!r:.60} -> {now!r:.60}".strip()
