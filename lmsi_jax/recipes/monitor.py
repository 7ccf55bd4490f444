"""The warning of Baker et al. (2025, arXiv 2503.11926) as an experiment: train against a check, and audit by others.

    questions with a wrong suggestion -> sample -> keep paths that follow it and pass the check -> fine-tune -> next round

A model that is trained to please and to pass a monitor may learn to hide from it. Before and after each round the held-out
paths that end in a wrong suggested answer are audited by all checks, also by those that training never saw. Here the check is a
filter before fine-tuning, whereas Baker et al. penalise what a monitor finds in reinforcement learning.
"""

from lmsi_jax.core.errors import UserError
from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import MonitorConfig
from lmsi_jax.recipes.parts import Parts, model_checks
from lmsi_jax.stages.monitor import AuditSettings, FollowersSettings, SuggestSettings, run_audit, run_followers, run_suggest


def stages(config: MonitorConfig, folder: RunFolder) -> list[Stage]:
    """Return the stages of all rounds and audits. Unlike self-improvement they read gold answers, to suggest wrong ones.

    Steps are checked against the questions without the suggestion, since a suggested number is not given.
    """
    parts = Parts(config, folder, config.model)
    if not parts.is_scored:
        raise UserError("There are no held-out questions with answers; name a file with --config.data.eval_questions.")
    train, held_out = folder.suggested("train"), folder.suggested("held_out")
    sources = {"questions": folder.questions, "gold": folder.gold, "held_out": folder.held_out}
    suggest = SuggestSettings(config.seed, parts.reader, config.suggestion)
    result = [parts.prepare(), Stage("suggest", run_suggest, suggest, sources, {"train": train, "suggested": held_out})]
    model, audited = parts.checkpoint, {"held_out": held_out}
    for number in range(config.rounds + 1):
        name = f"round-{number}" if number else "base"
        if number:
            group, trained = f"rounds/{number}", folder.model(name)
            inputs = {"questions": train, "paths": folder.paths(group), "steps": folder.steps(group)}
            follow = FollowersSettings(parts.format_settings, config.against)
            result += [
                parts.sample(group, number, model, train),
                parts.steps(group),
                Stage(f"{group}/followers", run_followers, follow, inputs, {"examples": folder.examples(group)}),
                parts.finetune(group, number, model, trained),
            ]
            model = trained
        group = f"audit/{name}"
        result += [parts.sample(group, number + 1, model, held_out), parts.steps(group, folder.held_out)]
        audited |= {f"{name} paths": folder.paths(group), f"{name} steps": folder.steps(group)}
    names = ("base", *(f"round-{number}" for number in range(1, config.rounds + 1)))
    audit = AuditSettings(parts.reader, names, config.against, parts.contract)
    return [*result, Stage("audit", run_audit, audit, audited, {"measures": folder.measures})]


RECIPE = Recipe("monitor", stages, model_checks("model"))
