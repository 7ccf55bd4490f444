"""Runs the stages of a recipe that are not done yet."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from rich.text import Text

from lmsi_jax.checkpoint.config import resolve_numerics
from lmsi_jax.core import weights_and_biases
from lmsi_jax.core.errors import UserError, unknown
from lmsi_jax.core.progress import console
from lmsi_jax.core.settings import to_dict
from lmsi_jax.core.version import code_version
from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Ledger, Stage
from lmsi_jax.pipeline.store import open_store
from lmsi_jax.pipeline.workdir import PACKAGES, check_workdir, locked_workdir
from lmsi_jax.sharding import processes


@dataclasses.dataclass(frozen=True)
class Options:
    """Which stages of a run are skipped, repeated or accepted.

    Attributes:
      only: run only the stage of this name, or the stages whose names end in it.
      start_from: run the stage of this name, or with this ending, and all later stages again.
      dry_run: print what would run, and write nothing.
      reconfigure: accept a work directory of another config.
      any_code: accept finished stages of another version of the code.
      wandb: the project of Weights & Biases that the metrics are sent to as well; "" is none.
      store: the folder of stages that any run has finished. None is the one beside the work directory, "none" is no store.
    """

    only: str = ""
    start_from: str = ""
    dry_run: bool = False
    reconfigure: bool = False
    any_code: bool = False
    wandb: str = ""
    store: str | None = None


def run(recipe: Recipe[Any], config: Any, workdir: str, command_line: Sequence[str], options: Options) -> None:
    """Run all stages of a recipe in order, and skip those that are done.

    The work directory is locked against other runs, except in a dry run. Raises UserError when a check fails, when no stage
    has a name of the options, or when the inputs of a stage are missing.
    """
    folder = RunFolder.at(workdir)
    runtime = Runtime(config.mesh, folder.metrics)
    config = resolve_numerics(config, jax.default_backend())
    processes.check_equal("the config", to_dict(config))
    processes.check_equal("the code of lmsi_jax", code_version())
    if not options.reconfigure:
        processes.by_first(lambda: check_workdir(config, folder))
    for check in recipe.checks:
        check.run(config, runtime)
    stages = recipe.stages(config, folder)
    for name in (options.only, options.start_from):
        _check_name(stages, name)
    about = {"recipe": recipe.name, "stages": [stage.name for stage in stages]}
    lock = locked_workdir(config, folder, command_line, about, reconfigure=options.reconfigure)
    with contextlib.nullcontext() if options.dry_run else lock, _mirrored(options, config, folder):
        runner = _Runner(folder, runtime, options)
        ran = [stage for stage in stages if runner.run(stage)]
    if options.dry_run:
        return
    if not ran:
        console.print("Every stage is done; nothing to do.")
    if not options.only and processes.is_first():
        recipe.show(folder)


def _mirrored(options: Options, config: Any, folder: RunFolder) -> contextlib.AbstractContextManager[None]:
    """Return the context in which metrics are also sent elsewhere, by the first process."""
    if not options.wandb or options.dry_run or not processes.is_first():
        return contextlib.nullcontext()
    return weights_and_biases.mirrored(options.wandb, str(folder.root), to_dict(config))


class _Runner:
    """Runs stages in order, and prints why each of them runs or does not."""

    def __init__(self, folder: RunFolder, runtime: Runtime, options: Options):
        self._folder, self._runtime, self._options = folder, runtime, options
        self._ledger = Ledger(folder, any_code=options.any_code)
        self._store = open_store(options.store, folder.root, any_code=options.any_code)
        self._outdated = set[epath.Path]()  # outputs of stages that have to run and did not
        self._predicted: dict[epath.Path, str] = {}  # fingerprints of what a dry run would take from the store
        self._forced = False

    def run(self, stage: Stage) -> bool:
        """Run a stage unless it is done, in the store, or not selected; return whether it ran."""
        names, options = ("", stage.name, stage.short_name), self._options
        self._forced = self._forced or options.start_from in names[1:]
        (why, is_ready), selected = self._why(stage), options.only in names
        reuse = functools.partial(self._reuse, stage)
        if why and is_ready and selected and not self._forced and processes.by_first(reuse):
            return False
        if why is None or options.dry_run or not selected:
            self._outdated.update(stage.outputs.values() if why else ())
            if selected:
                console.print(f"{stage.name}: {'done, reused' if why is None else 'would run: ' + why}")
            return False
        if not is_ready:
            raise UserError(f"Stage {stage.name}: {why}. Run the stages before it first (lmsi run without --only).")
        console.print(Text(stage.name, style="bold").append(f": {why}", style="not bold"))
        seconds = self._ledger.execute(stage, self._runtime, self._reusable_rows(stage))
        processes.by_first(functools.partial(self._store.publish, stage, self._folder))
        console.print(f"{stage.name}: done in {seconds:.0f} s")
        return True

    def _why(self, stage: Stage) -> tuple[str | None, bool]:
        """Return why a stage has to run, None if it is done, and whether its inputs are ready."""
        rebuilt = sorted(self._folder.label(path) for path in stage.inputs.values() if path in self._outdated)
        why = processes.by_first(functools.partial(self._ledger.why_stale, stage, self._predicted))
        if self._forced:
            return "requested with --from", not rebuilt
        if rebuilt:
            return f"inputs will be rebuilt: {', '.join(rebuilt)}", False
        return why, not (why or "").startswith("waits")

    def _reuse(self, stage: Stage) -> bool:
        """Take the outputs of a stage from the store, which a dry run only announces; return whether the store has them."""
        entry = self._store.find(stage, self._predicted)
        if entry and self._options.dry_run:
            self._predicted |= {path: entry.outputs[name] for name, path in stage.outputs.items()}
            console.print(f"{stage.name}: would be reused from the store")
        elif entry:
            self._store.fetch(entry, stage, self._folder)
            self._ledger.mark_reused(stage)
            console.print(f"{stage.name}: reused from the store")
        return entry is not None

    def _reusable_rows(self, stage: Stage) -> list[dict[str, epath.Path]]:
        """Return stored outputs whose rows `stage` may reuse, the same on all processes."""
        if self._forced or not stage.by_row:
            return []
        stored = processes.by_first(lambda: [{n: str(file) for n, file in o.items()} for o in self._store.reusable(stage)])
        return [{name: epath.Path(file) for name, file in outputs.items()} for outputs in stored]


def _check_name(stages: Sequence[Stage], name: str) -> None:
    names = {n for stage in stages for n in (stage.name, stage.short_name)}
    if name and name not in names:
        raise unknown("stage", name, sorted(names))


def doctor(recipe: Recipe[Any], config: Any) -> int:
    """Print versions and the result of each check: "ok", or a problem with its remedy. Return the number of problems."""
    console.print(f"Python {platform.python_version()}; " + ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES))
    config, runtime, problems = resolve_numerics(config, jax.default_backend()), Runtime(config.mesh, epath.Path("metrics")), 0
    for check in recipe.checks:
        try:
            result, verdict = check.run(config, runtime), "ok"
        except UserError as error:
            result, verdict, problems = str(error), "problem", problems + 1
        console.print(f"{verdict:8}{check.name}: {result}")
    return problems
