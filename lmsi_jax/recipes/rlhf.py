"""Reinforcement learning from human feedback (Ouyang et al. 2022, arXiv 2203.02155), from one file of rankings.

rankings -> fine-tune on the best answers -> reward model -> [sample paths -> score -> update] x steps -> evaluate
"""

from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import RlhfConfig
from lmsi_jax.recipes.parts import Parts, model_checks, report, show_scores
from lmsi_jax.recipes.reward import OF_RANKINGS, rankings_file, reward_stage
from lmsi_jax.recipes.rl import rl_stage
from lmsi_jax.stages.chosen import ChosenSettings, run_chosen
from lmsi_jax.stages.prompts import load_prompts

GROUP = "chosen"


def stages(config: RlhfConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. They score the models "base", "imitating" (the best answers) and "rl"."""
    parts, file = Parts(config, folder, config.model), rankings_file(config)
    imitating, reward = folder.model("imitating"), folder.model("reward")
    prompts = load_prompts(config.data, config.model.checkpoint)
    settings = ChosenSettings(prompts, config.seed, config.reward.held_out)
    training = [
        Stage(GROUP, run_chosen, settings, {"rankings": file}, {"examples": folder.examples(GROUP)}),
        parts.finetune(GROUP, 1, parts.checkpoint, imitating),
        reward_stage(config, config.reward_train, folder, imitating),
        rl_stage(config, parts, folder, imitating, reward),
    ]
    result = [parts.prepare()]
    if parts.is_scored:
        result += [parts.evaluate("base", parts.checkpoint, 0), *parts.transfer("base", parts.checkpoint, 0)]
    result += training
    if parts.is_scored:
        result += [parts.evaluate("imitating", imitating, 1), parts.evaluate("rl", folder.model("rl"), 2)]
        result += parts.transfer("rl", folder.model("rl"), 2)
    return [*result, report(config, folder, result)]


RECIPE = Recipe("rlhf", stages, (*model_checks("model"), OF_RANKINGS), show_scores)
