"""Reinforcement learning: a model samples groups of paths, a reward compares them, and the model learns the better ones.

questions -> [sample m paths of some questions -> reward -> advantage -> update] x steps -> evaluate
"""

import dataclasses

from etils import epath

from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.settings import part
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import RlRunConfig
from lmsi_jax.recipes.parts import Parts, model_checks, report, show_scores
from lmsi_jax.rl.rewards import READS_GOLD
from lmsi_jax.stages.prompts import load_prompts
from lmsi_jax.stages.rl import RlSettings, run_rl
from lmsi_jax.trust.steps import with_contract


def stages(config: RlRunConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. They score the models "base" and "rl"."""
    parts, trained = Parts(config, folder, config.model), folder.model("rl")
    result = [parts.prepare()]
    if parts.is_scored:
        result += [parts.evaluate("base", parts.checkpoint, 0), *parts.transfer("base", parts.checkpoint, 0)]
    checkpoint = config.rl.reward_model
    result.append(rl_stage(config, parts, folder, parts.checkpoint, checkpoints.locate(checkpoint) if checkpoint else None))
    if parts.is_scored:
        result += [parts.evaluate("rl", trained, 1), *parts.transfer("rl", trained, 1)]
    return [*result, report(config, folder, result)]


def rl_stage(config: RlRunConfig, parts: Parts, folder: RunFolder, model: epath.Path, reward_model: epath.Path | None) -> Stage:
    """Return the stage that trains the model "rl" from `model`."""
    sampling = part(config.sample, Sampling)
    settings = RlSettings(
        seed=config.seed,
        numerics=part(config.model, Numerics),
        prompts=load_prompts(config.data, config.model.checkpoint),
        reader=parts.reader,
        sampling=dataclasses.replace(
            sampling, paths=config.rl.paths, temperature=config.rl.temperature, top_k=0, top_p=1.0, keep=("tokens", "logprobs")
        ),
        # The reward model is an input of the stage, not one of its settings.
        rl=dataclasses.replace(config.rl, checks=with_contract(config.rl.checks, parts.contract), reward_model=""),
        batching=part(config.sample, Batching),
        train=config.train,
    )
    inputs = {"questions": folder.questions, "model": model}
    inputs |= {"reward_model": reward_model} if reward_model else {}
    inputs |= {"gold": folder.gold} if set(READS_GOLD) & set(config.rl.rewards) else {}
    outputs = {"trained": folder.model("rl"), "rollouts": folder.rollouts, "guard": folder.guard}
    return Stage("rl", run_rl, settings, inputs, outputs, on_mesh=True)


RECIPE = Recipe("rl", stages, model_checks("model", trains=False), show_scores)
