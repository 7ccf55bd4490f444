"""The tasks of a self-improvement run: `data.task`, and `more_tasks`, whose training rows train the same model.

The paper's table 4 is of one model that was trained on six data sets.
"""

import dataclasses

from lmsi_jax.core.errors import UserError
from lmsi_jax.pipeline.recipe import Check
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import OTHER_TASK, Parts, report
from lmsi_jax.stages.mix import MixSettings, run_mix
from lmsi_jax.tasks.sets import DATASETS


@dataclasses.dataclass(frozen=True)
class TaskRun:
    """One task of a run, with its config and folder. The records of a further task are below W/tasks/NAME, like a run's own."""

    name: str
    config: Config
    folder: RunFolder
    prefix: str  # of the names of its stages
    parts: Parts

    def named(self, *stages: Stage) -> list[Stage]:
        """Return stages of this task under names that no stage of another task has."""
        return [dataclasses.replace(stage, name=self.prefix + stage.name) for stage in stages]

    def report(self, made: list[Stage]) -> list[Stage]:
        """Return the stage that writes the report of a further task, from those of the stages `made` that are of this task."""
        own = [dataclasses.replace(stage, name=stage.name.removeprefix(self.prefix)) for stage in made if self._has(stage)]
        return self.named(report(self.config, self.folder, own, is_part=True))

    def _has(self, stage: Stage) -> bool:
        return all(path.is_relative_to(self.folder.root) for path in stage.outputs.values())


def task_runs(config: Config, folder: RunFolder) -> list[TaskRun]:
    """Return the tasks of a run, the main one first."""
    runs = [TaskRun(config.data.task, config, folder, "", Parts(config, folder, config.model))]
    for name, of_task in further_tasks(config).items():
        below = RunFolder(folder.root / "tasks" / name)
        runs.append(TaskRun(name, of_task, below, f"tasks/{name}/", Parts(of_task, below, config.model)))
    return runs


def further_tasks(config: Config) -> dict[str, Config]:
    """Return the config of each of `more_tasks`: that of the run, with the task's own exemplars, answers and splits.

    Raises UserError for a task that is named twice, or whose questions have no source.
    """
    found: dict[str, Config] = {}
    for name in config.more_tasks:
        if name == config.data.task or name in found:
            raise UserError(
                f"more_tasks={config.more_tasks} names '{name}', which the run trains on already; name each task once."
            )
        if name == "jsonl" or name in DATASETS and config.data.source not in ("files", "tfds"):
            raise UserError(
                f"more_tasks names '{name}', whose questions would have to come from a file, and data.questions is that of "
                f"'{config.data.task}'. Set --config.data.source=files or tfds."
            )
        data = dataclasses.replace(config.data, **OTHER_TASK, task=name, train_split="")
        evaluate = dataclasses.replace(config.evaluate, other_tasks=(), texts="")  # measured once, with the main task
        found[name] = dataclasses.replace(config, data=data, evaluate=evaluate, more_tasks=())
    return found


def mixed(group: str, tasks: list[TaskRun]) -> Stage:
    """Return the stage that joins the training rows of all tasks, in the order of their names."""
    inputs = {task.name: task.folder.examples(group) for task in sorted(tasks, key=lambda task: task.name)}
    return Stage(f"{group}/mix", run_mix, MixSettings(tuple(inputs)), inputs, {"examples": tasks[0].folder.mixture(group)})


def for_each_task(check: Check[Config]) -> Check[Config]:
    """Return a check of the prompts and questions of every task of a run."""

    def run(config: Config, runtime: Runtime) -> str:
        of_tasks: dict[str, Config] = {config.data.task: config, **further_tasks(config)}
        results = {name: check.run(of_task, runtime) for name, of_task in of_tasks.items()}
        return "; ".join(f"{name}: {text}" for name, text in results.items()) if len(results) > 1 else results[config.data.task]

    return Check(check.name, run)
