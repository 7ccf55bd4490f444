"""Runs the arms of a study one after another, in one process; they share what they have in common through the store."""

import dataclasses
import importlib
import traceback
from collections.abc import Sequence
from typing import Any

import jax

from lmsi_jax.checkpoint.config import resolve_numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_json, write_text
from lmsi_jax.core.lock import locked
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import dumps
from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runner import Options, run
from lmsi_jax.pipeline.stage import Ledger, Stage
from lmsi_jax.studies import sharing
from lmsi_jax.studies.cost import Rates, Work, work_of
from lmsi_jax.studies.page import write_page
from lmsi_jax.studies.results import read_results, result_table
from lmsi_jax.studies.study import Plan, Run


def sweep(plan: Plan, command_line: Sequence[str], options: Options) -> int:
    """Run all arms, or resume them, and write study.jsonl and study.html. Return the number of runs that failed.

    A run that fails does not stop the others. With `options.dry_run` nothing is written: the stages that would run are printed,
    with their tokens and a rough time.
    """
    recipe: Recipe[Any] = importlib.import_module(f"lmsi_jax.recipes.{plan.study.recipe}").RECIPE
    resolved = (dataclasses.replace(run, config=resolve_numerics(run.config, jax.default_backend())) for run in plan.runs)
    plan = dataclasses.replace(plan, runs=tuple(resolved))
    root, planned = plan.root, plan.runs
    options = dataclasses.replace(options, store=options.store or str(root / ".store"))
    if options.dry_run:
        _foresee(recipe, planned, options)
        return 0
    failed: dict[str, str] = {}
    with locked(root):
        for number, each in enumerate(planned, start=1):
            console.print(f"[{number}/{len(planned)}] {each.name}", markup=False)
            try:
                run(recipe, each.config, str(each.folder.root), command_line, options)
            except UserError as error:
                failed[each.name] = str(error)
            except Exception as error:  # such as a device that is out of memory
                failed[each.name] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
            if each.name in failed:
                console.print(f"{each.name} failed: {failed[each.name]}", markup=False)
            _summarise(plan, failed)
    for name, problem in failed.items():
        console.print(f"failed: {name}: {problem}", markup=False)
    return len(failed)


def _summarise(plan: Plan, failed: dict[str, str]) -> None:
    """Write the table of what is finished so far."""
    study, root = plan.study, plan.root
    results = read_results(plan)
    write_text(root / "study.jsonl", "".join(dumps(dataclasses.asdict(row)) + "\n" for row in results))
    write_page(study, results, failed, root)
    if results:
        console.print(result_table(study, results))
    console.print(f"study: {root / 'study.html'}", markup=False)


def _foresee(recipe: Recipe[Any], planned: Sequence[Run], options: Options) -> None:
    """Print which stages of each run are done, shared or would run, with tokens and a rough time."""
    configs = [each.config for each in planned]
    stages = [recipe.stages(each.config, each.folder) for each in planned]
    pairs = zip(planned, stages, strict=True)
    done = {each.name: _seconds(each.folder, of_run, any_code=options.any_code) for each, of_run in pairs}
    finished = [
        (work_of(stage, config), done[each.name].get(stage.name, 0.0))
        for each, config, of_run in zip(planned, configs, stages, strict=True)
        for stage in of_run
    ]
    rates = Rates.measured((work, seconds) for work, seconds in finished if seconds)
    total, alone = Work(), Work()
    for each, config, of_run in zip(planned, configs, sharing.plan(stages), strict=True):
        work, words = Work(), []
        for item in of_run:
            shares = item.is_shared and options.store != "none"
            state = "done" if item.stage.name in done[each.name] else "shared" if shares else ""
            needed = work_of(item.stage, config)
            alone += needed
            work += Work() if state else needed
            words.append(f"{item.stage.name} ({state})" if state else item.stage.name)
        total += work
        console.print(f"{each.name}: {', '.join(words)}", markup=False)
        console.print(f"    {work.text(rates)}", markup=False)
    console.print(f"All {len(planned)} runs: {total.text(rates)}", markup=False)
    console.print(f"Without sharing: {alone.text(rates)}", markup=False)
    console.print(rates.about, markup=False)


def _seconds(folder: RunFolder, stages: Sequence[Stage], *, any_code: bool) -> dict[str, float]:
    """Return the seconds of each stage of a run that is done; 0 for one that was taken from the store."""
    ledger, seconds = Ledger(folder, any_code=any_code), {}
    for stage in stages:
        file = folder.manifest(stage.name)
        if file.exists() and ledger.why_stale(stage) is None:
            seconds[stage.name] = float(read_json(file)["seconds"])
    return seconds
