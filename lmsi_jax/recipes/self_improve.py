"""Large Language Models Can Self-Improve (Huang et al. 2022, arXiv 2210.11610), as a list of stages.

    questions -> sample m paths -> check steps -> vote -> format in four styles -> fine-tune -> evaluate -> next round

`stages` reads like the paper's method. No stage of a round reads a gold answer, unless `select.rule` is a control.
"""

from lmsi_jax.core.errors import UserError
from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import Parts, model_checks, report, show_scores


def stages(config: Config, folder: RunFolder) -> list[Stage]:
    """Return the stages of all rounds. "base" is the initial model, and "round-<r>" is the model after round r."""
    parts = Parts(config, folder, config.model)
    base = parts.checkpoint
    result = [parts.prepare()]
    if parts.writes_questions:
        result.append(parts.propose(base))
    if parts.writes_exemplars:
        result.append(parts.exemplars(base))
    if parts.is_scored:
        result += [parts.evaluate("base", base, 0), *parts.transfer("base", base, 0)]
    model, models = base, {"base": base}
    for number in range(1, config.rounds + 1):
        group, name = f"rounds/{number}", f"round-{number}"
        trained = folder.model(name)
        result += [
            parts.sample(group, number, model),
            parts.steps(group),
            parts.vote(group),
            *([parts.agreement(group)] if parts.writes_questions and number == 1 else []),
            parts.format(group),
            parts.finetune(group, number, base if config.train_from == "base" else model, trained),
        ]
        if parts.is_scored:
            result.append(parts.evaluate(name, trained, number))
        model = models[name] = trained
    if parts.is_scored and config.rounds:
        result += parts.transfer(name, model, config.rounds)
    if config.faithfulness and not parts.is_scored:
        raise UserError(
            f"faithfulness={config.faithfulness} needs held-out questions with answers; name a file with "
            f"--config.data.eval_questions."
        )
    if config.faithfulness:
        result += parts.faithfulness(config, models, config.faithfulness)
    return [*result, report(config, folder, result)]


RECIPE = Recipe("self_improve", stages, model_checks("model"), show_scores)
