"""Large Language Models Can Self-Improve (Huang et al. 2022, arXiv 2210.11610), as a list of stages.

    questions -> sample m paths -> check steps -> vote -> format in four styles -> fine-tune -> evaluate -> next round

`stages` reads like the paper's method. No stage of a round reads a gold answer, unless `select.rule` is a control.
"""

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import Parts, model_checks, report, show_scores
from lmsi_jax.recipes.tasks import for_each_task, mixed, task_runs


def stages(config: Config, folder: RunFolder) -> list[Stage]:
    """Return the stages of all rounds. "base" is the initial model, and "round-<r>" is the model after round r."""
    tasks = task_runs(config, folder)
    main = tasks[0].parts
    base = main.checkpoint
    result = [stage for task in tasks for stage in task.named(*_beginning(task.parts, base))]
    model, models = base, {"base": base}
    for number in range(1, config.rounds + 1):
        group, name = f"rounds/{number}", f"round-{number}"
        trained = folder.model(name)
        result += [stage for task in tasks for stage in task.named(*_round(task.parts, number, model))]
        result += [mixed(group, tasks)] if len(tasks) > 1 else []
        rows = folder.mixture(group) if len(tasks) > 1 else folder.examples(group)
        start = base if config.train_from == "base" else model
        if main.learns_from_pairs:
            result.append(main.prefer(group, number, start, trained))
        else:
            result.append(main.finetune(group, number, start, trained, rows))
        for task in tasks:
            result += task.named(task.parts.evaluate(name, trained, number)) if task.parts.is_scored else []
        model = models[name] = trained
    if config.rounds:
        for task in tasks:
            result += task.named(*task.parts.transfer(name, model, config.rounds)) if task.parts.is_scored else []
    if config.faithfulness and not main.is_scored:
        raise UserError(
            f"faithfulness={config.faithfulness} needs held-out questions with answers; name a file with "
            f"--config.data.eval_questions."
        )
    if config.faithfulness:
        result += main.faithfulness(config, models, config.faithfulness)
    reports = [stage for task in tasks[1:] for stage in task.report(result)]
    return [*result, *reports, report(config, folder, result)]


def _beginning(parts: Parts, base: epath.Path) -> list[Stage]:
    """Return the stages of one task before the first round."""
    result = [parts.prepare()]
    if parts.writes_questions:
        result.append(parts.propose(base))
    if parts.writes_exemplars:
        result.append(parts.exemplars(base))
    if parts.is_scored:
        result += [parts.evaluate("base", base, 0), *parts.transfer("base", base, 0)]
    return result


def _round(parts: Parts, number: int, model: epath.Path) -> list[Stage]:
    """Return the stages of one task in a round, from the samples of `model` to the training rows."""
    group = f"rounds/{number}"
    result = [parts.sample(group, number, model), parts.steps(group), parts.vote(group)]
    if parts.writes_questions and number == 1:
        result.append(parts.agreement(group))
    return [*result, parts.pairs(group) if parts.learns_from_pairs else parts.format(group)]


def _show(folder: RunFolder) -> None:
    """Print the scores of each task."""
    further = sorted((folder.root / "tasks").glob("*"))
    for below in further:
        console.print(f"{below.name}:", markup=False)
        show_scores(RunFolder(below))
    if further:
        console.print("data.task:", markup=False)
    show_scores(folder)


# What depends on the questions and exemplars of a task.
CHECKS = [for_each_task(c) if c.name in ("prompts", "stop strings") else c for c in model_checks("model")]
RECIPE = Recipe("self_improve", stages, CHECKS, _show)
