"""The models and the groups of records that a run has or plans, by name and in order."""

import dataclasses
import re
from collections.abc import Iterable

from etils import epath

from lmsi_jax.core.files import read_json
from lmsi_jax.pipeline.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Planned:
    """The stages, the scored models and the voted groups of a run. Other models are compared with the first one."""

    stages: list[str]
    models: list[str]
    groups: list[str]


def read_plan(folder: RunFolder) -> Planned:
    """Return the stages that run.json lists, and the models and groups of these stages and of the folder."""
    about = read_json(folder.history) if folder.history.exists() else {}
    stages: list[str] = about.get("stages", [])
    models = [stage.split("/")[1] for stage in stages if re.fullmatch(r"eval/[^/]+/evaluate", stage)]
    voted = [stage.removesuffix("/vote") for stage in stages if stage.endswith("/vote")]
    groups = [group for group in voted if not group.startswith("tasks/")]  # further tasks have reports of their own
    scored = [path.name for path in _folders(folder.scores("*", "*").parent.parent)]
    rounds = [f"rounds/{path.name}" for path in _folders(folder.root / "rounds")]
    models, groups = [*models, *sorted(scored, key=_natural)], [*groups, *sorted(rounds, key=_natural)]
    return Planned(stages, [*dict.fromkeys(models)], [*dict.fromkeys(groups)])


def _folders(parent: epath.Path) -> Iterable[epath.Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.exists() else []


def _natural(name: str) -> tuple[list[int], str]:
    """Return a sort key that orders numbers by size."""
    return [int(number) for number in re.findall(r"\d+", name)], name


def title(name: str) -> str:
    """Return the name of a model or group in words: "round 1" for "round-1" and "rounds/1"."""
    return name.replace("rounds/", "round ").replace("-", " ").replace("/", " ")
