"""Running the stages that are not done yet."""

import datetime
import difflib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from etils import epath

import lmsi_jax
from lmsi_jax.analysis.summary import print_table, read_scores, summarise
from lmsi_jax.core.config import Config, to_dict
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import write_text
from lmsi_jax.pipeline.preflight import preflight
from lmsi_jax.pipeline.self_improve import SelfImprove
from lmsi_jax.pipeline.session import Session
from lmsi_jax.pipeline.stage import Ledger

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "sentencepiece", "ml_collections", "numpy")


def run(
    config: Config,
    workdir: str,
    command_line: Sequence[str],
    *,
    only: str = "",
    start_from: str = "",
    dry_run: bool = False,
    reconfigure: bool = False,
) -> None:
    """All stages in order, leaving out what is done. `only` names one stage (or kind), `start_from` redoes from one on."""
    folder = epath.Path(workdir).absolute() if "://" not in workdir else epath.Path(workdir)
    session = Session(config)
    _check_workdir(config, folder, reconfigure)
    preflight(session)
    loop, ledger = SelfImprove(session, folder), Ledger(folder)
    _check_name(loop, only or start_from)
    if not dry_run:
        _describe_run(config, folder, command_line)
    ran = forced = 0
    for stage in loop.stages():
        if only and only not in (stage.name, stage.kind):
            continue
        forced = forced or (start_from in (stage.name, stage.kind))
        why = "asked for with --from" if forced else ledger.why_stale(stage)
        if why is None or dry_run:
            console.print(f"{stage.name}: {'done, reused' if why is None else 'would run: ' + why}")
            continue
        if why.startswith("waits"):
            raise UserError(f"Stage {stage.name} {why}; run the stages before it first (lmsi run without --only).")
        console.print(f"[bold]{stage.name}[/bold]: {why}")
        seconds = ledger.execute(stage)
        console.print(f"{stage.name}: done in {seconds:.0f} s")
        ran += 1
    if dry_run:
        return
    if not ran:
        console.print("Every stage is done; nothing to do.")
    if not only:
        _show_results(folder)


def _show_results(folder: epath.Path) -> None:
    rows = summarise(read_scores(folder))
    if rows:
        console.print(print_table(rows))
    console.print(f"report: {folder / 'report.html'}")


def _check_workdir(config: Config, folder: epath.Path, reconfigure: bool) -> None:
    stored = folder / "config.json"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir={folder} is a file; name a directory.")
    if reconfigure or not stored.exists():
        return
    before, now = _flat(json.loads(stored.read_text())), _flat(json.loads(json.dumps(to_dict(config))))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        rows = "; ".join(f"{key}: {before.get(key)!r:.40} there, {now.get(key)!r:.40} here" for key in changed[:5])
        raise UserError(
            f"{folder} belongs to a run with another config, {len(changed)} setting(s) differ ({rows}). Choose another "
            f"--workdir, or add --reconfigure to take the new settings over: stages they do not touch are kept."
        )


def _flat(tree: dict, path: str = "") -> dict:
    flat: dict = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{path}{key}.") if isinstance(value, dict) and value else {f"{path}{key}": value})
    return flat


def _check_name(loop: SelfImprove, name: str) -> None:
    names = {n for stage in loop.stages() for n in (stage.name, stage.kind)}
    if name and name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise UserError(f"There is no stage '{name}'; the nearest is '{near}'. Stages: {', '.join(sorted(names))}.")


def _describe_run(config: Config, folder: epath.Path, command_line: Sequence[str]) -> None:
    """config.json is the resolved config; run.json has what it takes to do this again."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    about = {
        "command_line": list(command_line),
        "git": _git_hash(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(),
        "python": platform.python_version(),
        "versions": {"lmsi_jax": lmsi_jax.__version__, **versions},
    }
    write_text(folder / "config.json", json.dumps(to_dict(config), indent=2) + "\n")
    write_text(folder / "run.json", json.dumps(about, indent=2) + "\n")


def _git_hash() -> str | None:
    """The commit of a source checkout; None for an installed package."""
    root = Path(lmsi_jax.__file__).parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if (root / ".git").exists() else None
