"""Running the stages that are not done yet."""

import contextlib
import functools
from collections.abc import Sequence

from etils import epath
from rich.text import Text

from lmsi_jax.analysis.summary import print_table, read_scores, summarise
from lmsi_jax.core.build import to_dict
from lmsi_jax.core.config import Config
from lmsi_jax.core.errors import UserError, nearest
from lmsi_jax.core.files import absolute
from lmsi_jax.core.progress import console
from lmsi_jax.core.version import code_version
from lmsi_jax.pipeline.preflight import preflight
from lmsi_jax.pipeline.self_improve import SelfImprove
from lmsi_jax.pipeline.session import Session
from lmsi_jax.pipeline.stage import Ledger
from lmsi_jax.pipeline.workdir import check_workdir, writing
from lmsi_jax.sharding import processes


def run(
    config: Config,
    workdir: str,
    command_line: Sequence[str],
    *,
    only: str = "",
    start_from: str = "",
    dry_run: bool = False,
    reconfigure: bool = False,
    any_code: bool = False,
) -> None:
    """All stages in order, leaving out what is done. `only` names one stage (or kind), `start_from` redoes from one on.

    `reconfigure` takes over a work directory of another config; `any_code` keeps stages that another version of the code
    made. The work directory is locked against other runs, unless this is a `dry_run`, which writes nothing.
    """
    folder, session = absolute(workdir), Session(config)
    processes.check_equal("the config", to_dict(config))
    processes.check_equal("the code of lmsi_jax", code_version())
    if not reconfigure:
        processes.by_first(lambda: check_workdir(config, folder))
    preflight(session)
    loop, ledger = SelfImprove(session, folder), Ledger(folder, any_code=any_code)
    for name in (only, start_from):
        _check_name(loop, name)
    with contextlib.nullcontext() if dry_run else writing(config, folder, command_line, reconfigure=reconfigure):
        ran = _run_stages(loop, ledger, only, start_from, dry_run)
    if dry_run:
        return
    if not ran:
        console.print("Every stage is done; nothing to do.")
    if not only and processes.is_first():
        _show_results(folder)


def _run_stages(loop: SelfImprove, ledger: Ledger, only: str, start_from: str, dry_run: bool) -> int:
    """Run the stages that are stale, and say so; returns how many ran."""
    folder, stale = loop.workdir, set[epath.Path]()
    ran, forced = 0, False
    for stage in loop.stages():
        forced = forced or start_from in (stage.name, stage.kind)
        remade = sorted(str(path.relative_to(folder)) for path in stage.inputs if path in stale)
        stale_because = processes.by_first(functools.partial(ledger.why_stale, stage))
        why = "asked for with --from" if forced else stale_because
        why = f"inputs will be made anew: {', '.join(remade)}" if remade and not forced else why
        skipped = bool(only) and only not in (stage.name, stage.kind)
        if why is None or dry_run or skipped:
            stale.update(stage.outputs if why else ())
            if not skipped:
                console.print(f"{stage.name}: {'done, reused' if why is None else 'would run: ' + why}")
            continue
        if remade or why.startswith("waits"):
            raise UserError(f"Stage {stage.name}: {why}. Run the stages before it first (lmsi run without --only).")
        console.print(Text(stage.name, style="bold").append(f": {why}", style="not bold"))
        seconds = ledger.execute(stage)
        console.print(f"{stage.name}: done in {seconds:.0f} s")
        ran += 1
    return ran


def _show_results(folder: epath.Path) -> None:
    rows = summarise(read_scores(folder))
    if rows:
        console.print(print_table(rows))
    console.print(f"report: {folder / 'report.html'}")


def _check_name(loop: SelfImprove, name: str) -> None:
    names = {n for stage in loop.stages() for n in (stage.name, stage.kind)}
    if name and name not in names:
        near = nearest(name, names)
        raise UserError(f"There is no stage '{name}'; the nearest is '{near}'. Stages: {', '.join(sorted(names))}.")
