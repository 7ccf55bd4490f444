"""A reward model, trained on human rankings: its scores predict which of two answers people prefer."""

from typing import Any

from etils import epath

from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import part
from lmsi_jax.pipeline.recipe import Check, Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import RewardRunConfig, RlhfConfig
from lmsi_jax.recipes.parts import report
from lmsi_jax.rl.rankings import load_rankings
from lmsi_jax.stages import checks
from lmsi_jax.stages.prompts import load_prompts
from lmsi_jax.stages.reward import RewardSettings, check_lengths, run_reward
from lmsi_jax.training.config import UpdateConfig


def stages(config: RewardRunConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. They train the model "reward"."""
    result = [reward_stage(config, config.train, folder, checkpoints.locate(config.model.checkpoint))]
    return [*result, report(config, folder, result)]


def reward_stage(config: RewardRunConfig | RlhfConfig, train: UpdateConfig, folder: RunFolder, model: epath.Path) -> Stage:
    """Return the stage that trains the model "reward" from `model`."""
    settings = _settings(config, train)
    inputs = {"rankings": rankings_file(config), "model": model}
    outputs = {"trained": folder.model("reward"), "quality": folder.quality}
    return Stage("reward", run_reward, settings, inputs, outputs, on_mesh=True)


def _settings(config: RewardRunConfig | RlhfConfig, train: UpdateConfig) -> RewardSettings:
    prompts = load_prompts(config.data, config.model.checkpoint)
    return RewardSettings(config.seed, part(config.model, Numerics), prompts, config.reward, train)


def rankings_file(config: RewardRunConfig | RlhfConfig) -> epath.Path:
    """Return the file of rankings. Raises UserError when none is named, or when it does not exist."""
    file = epath.Path(config.reward.rankings)
    if not config.reward.rankings:
        raise UserError("There are no rankings to learn from; name a JSON Lines file with --rankings=FILE.")
    if not file.exists():
        raise UserError(f"--rankings={file} does not exist; rl/rankings.py lists the formats, and `lmsi review` writes one.")
    return file


def _rankings(config: RewardRunConfig | RlhfConfig, runtime: Runtime) -> str:
    rankings = load_rankings(rankings_file(config))
    train = config.reward_train if isinstance(config, RlhfConfig) else config.train
    source = config.model.checkpoint
    tokenizer, context = runtime.tokenizer(source, control=config.data.chat), checkpoints.load_config(source).context
    longest = check_lengths(rankings, _settings(config, train), tokenizer, context)
    prompts, annotators = ({getattr(ranking, name) for ranking in rankings} for name in ("prompt", "annotator"))
    return (
        f"{len(rankings):,} rankings of answers to {len(prompts):,} prompts, by {len(annotators):,} annotators; the answers "
        f"of one take at most {longest:,} tokens"
    )


OF_RANKINGS = Check[Any]("rankings", _rankings)
RECIPE = Recipe("reward", stages, (Check[Any]("devices", checks.devices), OF_RANKINGS))
