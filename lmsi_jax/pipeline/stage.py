"""A stage is a function from files to files; its manifest, written last, says what it was made from."""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

from etils import epath

import lmsi_jax
from lmsi_jax.core import clock
from lmsi_jax.core.records import dumps, fingerprint, path_fingerprint, write_text


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

    @property
    def kind(self) -> str:
        return self.name.rpartition("/")[2]


class Ledger:
    """Which stages of a work directory are done."""

    def __init__(self, workdir: epath.Path):
        self._workdir = workdir

    def _manifest(self, stage: Stage) -> epath.Path:
        return self._workdir / "manifests" / f"{stage.name.replace('/', '-')}.json"

    def _sources(self, stage: Stage) -> dict[str, Any]:
        inputs = {self._label(path): path_fingerprint(path) for path in stage.inputs}
        settings = json.loads(json.dumps(stage.settings))
        return {"inputs": inputs, "settings": settings, "version": lmsi_jax.__version__}

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
        before, now = json.loads(manifest.read_text()), self._sources(stage)
        for what in ("inputs", "settings", "version"):
            if before[what] != now[what]:
                return f"{what} changed: {_difference(before[what], now[what])}"
        gone = [self._label(path) for path in stage.outputs if not path.exists()]
        return f"output is gone: {', '.join(gone)}" if gone else None

    def execute(self, stage: Stage) -> float:
        """Run a stage and write its manifest; returns the seconds it took."""
        sources = self._sources(stage)
        name = stage.name.replace("/", "-")
        scratch = self._workdir / "scratch" / f"{name}-{fingerprint(sources)}"
        self._manifest(stage).unlink(missing_ok=True)
        before, start = clock.spent(), time.perf_counter()
        stage.run(scratch)
        seconds = time.perf_counter() - start
        times = {"seconds": round(seconds, 1), "times": clock.since(before, seconds)}
        write_text(self._manifest(stage), dumps({"stage": stage.name, **sources, **times}) + "\n")
        for partial in (self._workdir / "scratch").glob(f"{name}-*"):  # of earlier settings too
            partial.rmtree()
        return seconds


def _difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(_difference(before.get(k), now.get(k), f"{path}.{k}".strip(".")) for k in changed[:4])
    return f"{path} {before!r:.60} -> {now!r:.60}".strip()
