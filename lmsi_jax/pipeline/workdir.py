"""The work directory of a run: its lock, the config that it belongs to, and how to repeat the run."""

import contextlib
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_json, remove_temporary, write_text
from lmsi_jax.core.lock import locked
from lmsi_jax.core.settings import flat, to_dict, traced
from lmsi_jax.core.version import code_version, describe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.sharding import processes

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "sentencepiece", "ml_collections", "numpy")


def check_workdir(config: Any, folder: RunFolder) -> None:
    """Raise UserError when `folder` belongs to a run with another config. Untraced settings may differ."""
    if folder.root.exists() and not folder.root.is_dir():
        raise UserError(f"--workdir={folder.root} is a file; name a directory.")
    if not folder.config.exists():
        return
    now = flat(json.loads(json.dumps(traced(config))))
    untraced = flat(json.loads(json.dumps(to_dict(config)))).keys() - now.keys()
    before = {name: value for name, value in flat(read_json(folder.config)).items() if name not in untraced}
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        rows = "; ".join(f"{key}: {before.get(key)!r:.40} there, {now.get(key)!r:.40} here" for key in changed[:5])
        raise UserError(
            f"{folder.root} belongs to a run with another config, {len(changed)} setting(s) differ ({rows}). Choose another "
            f"--workdir, or add --reconfigure to adopt the new settings: stages that do not depend on them are kept."
        )


@contextlib.contextmanager
def locked_workdir(
    config: Any, folder: RunFolder, command_line: Sequence[str], about: Mapping[str, Any], *, reconfigure: bool = False
) -> Iterator[None]:
    """Lock a work directory within the context, and write the files that describe the run. The first process does it for all.

    `about` goes into run.json. Raises UserError when another run holds the lock or, without `reconfigure`, when the
    directory belongs to a run with another config.
    """
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(locked(folder.root))
            if not reconfigure:
                check_workdir(config, folder)
            remove_temporary(folder.root)
            describe_run(config, folder, command_line, about)

        processes.by_first(begin)
        yield


def describe_run(config: Any, folder: RunFolder, command_line: Sequence[str], about: Mapping[str, Any]) -> None:
    """Write config.json (the resolved config) and run.json (how to repeat the run, and all earlier starts)."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    start = {
        "command_line": list(command_line),
        "git": describe(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {"lmsi_jax": code_version(), **versions},
    }
    before = read_json(folder.history) if folder.history.exists() else {}
    earlier = [*before.pop("earlier_starts", []), {k: v for k, v in before.items() if k in start}] if before else []
    write_text(folder.config, json.dumps(to_dict(config), indent=2) + "\n")
    write_text(folder.history, json.dumps({**about, **start, "earlier_starts": earlier}, indent=2) + "\n")
