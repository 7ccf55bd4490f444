"""Whose work directory it is, and what it takes to do the run again."""

import contextlib
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from lmsi_jax.core.build import to_dict
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_json, remove_temporary, write_text
from lmsi_jax.core.lock import locked
from lmsi_jax.core.version import code_version, describe
from lmsi_jax.sharding import processes

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "sentencepiece", "ml_collections", "numpy")
ASKING = ("url", "key_variable", "concurrency", "retries", "timeout")  # where and how a server is asked, not what
TRACELESS = (  # settings that leave no trace in a run
    "plan.", "finetune.profile", "sample.profile", "train.profile", *(f"sample.endpoint.{name}" for name in ASKING),
)  # fmt: skip


def check_workdir(config: Any, folder: epath.Path) -> None:
    """Raise UserError when `folder` belongs to a run with another config."""
    stored = folder / "config.json"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir={folder} is a file; name a directory.")
    if not stored.exists():
        return
    before, now = flat(read_json(stored)), flat(json.loads(json.dumps(to_dict(config))))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        rows = "; ".join(f"{key}: {before.get(key)!r:.40} there, {now.get(key)!r:.40} here" for key in changed[:5])
        raise UserError(
            f"{folder} belongs to a run with another config, {len(changed)} setting(s) differ ({rows}). Choose another "
            f"--workdir, or (lmsi run) add --reconfigure to take the new settings over: stages they do not touch are kept."
        )


def flat(tree: dict, path: str = "") -> dict:
    """Values by their whole names ("sample.paths"), but for those that leave no trace in a run."""
    found: dict = {}
    for key, value in tree.items():
        found.update(flat(value, f"{path}{key}.") if isinstance(value, dict) and value else {f"{path}{key}": value})
    return {name: value for name, value in found.items() if not name.startswith(TRACELESS)}


@contextlib.contextmanager
def writing(config: Any, folder: epath.Path, command_line: Sequence[str], *, reconfigure: bool = False) -> Iterator[None]:
    """The lock of a work directory, taken by the first process for all, and the files that describe the run in it.

    Raises UserError when another run writes there, or, unless it is to `reconfigure`, when it belongs to one.
    """
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(locked(folder))
            if not reconfigure:
                check_workdir(config, folder)
            remove_temporary(folder)
            describe_run(config, folder, command_line)

        processes.by_first(begin)
        yield


def describe_run(config: Any, folder: epath.Path, command_line: Sequence[str]) -> None:
    """config.json is the resolved config; run.json what it takes to do this again, with all earlier starts."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    start = {
        "command_line": list(command_line),
        "git": describe(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {"lmsi_jax": code_version(), **versions},
    }
    history = folder / "run.json"
    before = read_json(history) if history.exists() else {}
    earlier = [*before.pop("earlier_starts", []), before] if before else []
    write_text(folder / "config.json", json.dumps(to_dict(config), indent=2) + "\n")
    write_text(history, json.dumps({**start, "earlier_starts": earlier}, indent=2) + "\n")
