"""A study: a recipe, the config that its runs share, the settings of its arms, and the seeds.

A study is a Python file with `get_study()`, which returns a dict:

    recipe    the name of a recipe; "self_improve" by default
    config    the config file that all runs start from, relative to the study's own folder
    seeds     the seeds, (0, 1, 2) by default; each arm runs once with each
    settings  settings of all runs, by name, such as {"data.num_eval": 2048}
    arms      the settings of each arm by the arm's name; the first arm is the one that the others are compared with
    grid      in place of `arms`: lists of values by setting; each combination is an arm
    shown     the promptings of the table, in order, and the names of other tasks; all promptings that were scored by default
    controls  the arm that another one is compared with, by the name of the latter; the first arm where there is none
    published accuracies in % that were published for an arm, as {arm: {prompting: (before, after)}}; None where there is none
"""

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError, nearest
from lmsi_jax.core.python_file import about, call, located
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.tasks.sources import SOURCES

Settings = Mapping[str, Any]  # values by the full names of settings
KEYS = ("recipe", "config", "seeds", "settings", "arms", "grid", "controls", "shown", "published")


@dataclasses.dataclass(frozen=True)
class Arm:
    """The runs of a study that share their settings and differ in the seed."""

    name: str
    settings: Settings

    @property
    def folder(self) -> str:
        """A name for a folder: letters, digits, dots and dashes."""
        return re.sub("[^A-Za-z0-9.]+", "-", self.name).strip("-.").lower() or "arm"


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study runs. `about` is the first paragraph of its file's docstring."""

    name: str
    about: str
    recipe: str
    config: str
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    controls: Mapping[str, str]
    shown: tuple[str, ...]
    published: Mapping[str, Mapping[str, tuple[float | None, float | None]]]

    def control(self, arm: str) -> str:
        """Return the name of the arm that another one is compared with."""
        return self.controls.get(arm, self.arms[0].name)

    @property
    def varied(self) -> set[str]:
        """The names of the settings in which arms differ, and of the seed."""
        names = {name for arm in self.arms for name in arm.settings}
        return {"seed"} | {name for name in names if len({_text(arm.settings.get(name)) for arm in self.arms}) > 1}

    def overrides(self, arm: Arm, seed: int) -> list[str]:
        """Return the settings of one run as flags."""
        return [f"--config.{name}={_text(value)}" for name, value in {**arm.settings, "seed": seed}.items()]


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm of a study with one seed."""

    arm: Arm
    seed: int
    config: Any
    folder: RunFolder

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All runs of a study, seed by seed, and the folder of their results."""

    study: Study
    root: epath.Path
    runs: tuple[Run, ...]

    @property
    def mesh(self) -> Any:
        """The mesh of all runs."""
        return self.runs[0].config.mesh


def plan_runs(study: Study, workdir: str, load: Callable[[str, Sequence[str]], Any]) -> Plan:
    """Return the runs of a study. `load` maps a config file and settings, as flags, to a checked config.

    Raises UserError, which names the arm, when one of its settings is invalid or changes the devices, which all runs share.
    """
    root, runs = RunFolder.at(workdir).root, list[Run]()
    for seed in study.seeds:
        for arm in study.arms:
            try:
                config = load(study.config, study.overrides(arm, seed))
            except UserError as error:
                raise UserError(f"Arm '{arm.name}' of the study {study.name}: {error}") from error
            runs.append(Run(arm, seed, config, RunFolder(root / arm.folder / f"seed-{seed}")))
    other = next((run for run in runs if run.config.mesh != runs[0].config.mesh), None)
    if other:
        raise UserError(f"Arm '{other.arm.name}' of the study {study.name} has another mesh; all arms run on one.")
    return Plan(study, root, tuple(runs))


def load_study(file: str) -> Study:
    """Return the study of a file. Raises UserError, which names the problem, when the file does not define one."""
    path = located(file)
    values = call(path, "get_study")
    if not isinstance(values, dict):
        raise UserError(f"{file}: get_study() returns a {type(values).__name__}, not a dict.")
    return _study(path, about(path).partition("\n\n")[0], values)


def _study(path: Path, purpose: str, values: dict[str, Any]) -> Study:
    for key in values:
        if key not in KEYS:
            raise UserError(f"{path}: a study has no '{key}'; the nearest key is '{nearest(key, KEYS)}' of {', '.join(KEYS)}.")
    for key in ("seeds", "shown"):
        if key in values and not isinstance(values[key], list | tuple):
            raise UserError(f"{path}: `{key}` is {values[key]!r}; it must be a list.")
    if not isinstance(values.get("config"), str) or not values["config"]:
        raise UserError(f"{path}: a study needs `config`, the config file that its runs start from, such as '../tiny.py'.")
    seeds = tuple(values.get("seeds", (0, 1, 2)))
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(seed, int) for seed in seeds):
        raise UserError(f"{path}: seeds={seeds!r} must be different whole numbers, at least one.")
    shown = tuple(values.get("shown", PROMPTINGS))
    known = (*PROMPTINGS, *SOURCES, *DATASETS)
    unknown = [name for name in shown if name not in known]
    if unknown:
        raise UserError(f"{path}: shown={shown!r} names {', '.join(unknown)}; there are {', '.join(known)}.")
    arms, published = _arms(path, values), values.get("published", {})
    controls, names = values.get("controls", {}), [arm.name for arm in arms]
    for key, named in (("published", published), ("controls", (*controls, *controls.values()))):
        strange = [name for name in named if name not in names]
        if strange:
            raise UserError(f"{path}: {key}={strange!r} are no arms; there are {', '.join(names)}.")
    config = os.path.normpath(path.parent / values["config"])
    return Study(path.stem, purpose, values.get("recipe", "self_improve"), config, seeds, arms, controls, shown, published)


def _arms(path: Path, values: dict[str, Any]) -> tuple[Arm, ...]:
    common, named, grid = (values.get(key) or {} for key in ("settings", "arms", "grid"))
    for key, value in (("settings", common), ("arms", named), ("grid", grid)):
        if not isinstance(value, dict):
            raise UserError(f"{path}: `{key}` is a {type(value).__name__}, not a dict.")
    if bool(named) == bool(grid):
        raise UserError(f"{path}: a study has either `arms` or a `grid`; this one has {'both' if named else 'neither'}.")
    if grid:
        if not all(isinstance(value, list | tuple) and value for value in grid.values()):
            raise UserError(f"{path}: each setting of `grid` needs a list of values.")
        combined = [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]
        named = {_grid_name(settings): settings for settings in combined}
    for name, settings in named.items():
        if not isinstance(settings, dict):
            raise UserError(f"{path}: the settings of the arm '{name}' are a {type(settings).__name__}, not a dict.")
    arms = tuple(Arm(str(name), {**common, **settings}) for name, settings in named.items())
    folders = [arm.folder for arm in arms]
    if len(set(folders)) < len(folders):
        raise UserError(
            f"{path}: two arms have names that give the same folder: {', '.join(sorted(folders))}. Name them by `arms`, with "
            f"letters and digits that differ."
        )
    if len({_text(dict(sorted(arm.settings.items()))) for arm in arms}) < len(arms):
        raise UserError(f"{path}: two arms have the same settings, so that one of them would run for nothing.")
    return arms


def _grid_name(settings: Settings) -> str:
    return ", ".join(f"{name.rpartition('.')[2]}={_text(value)}" for name, value in settings.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(tuple(value) if isinstance(value, list) else value)
