"""Stages that train a chat model."""

import dataclasses

import pytest
from etils import epath

from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.formatting.prompts import Chat, Prompts
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import Parts
from lmsi_jax.rl.config import RewardConfig
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.stages.finetune import FinetuneSettings, run_finetune
from lmsi_jax.stages.prefer import PreferSettings, run_prefer
from lmsi_jax.stages.reward import RewardSettings, run_reward
from lmsi_jax.training.config import FinetuneConfig, TrainConfig, UpdateConfig
from tests.conftest import mesh_of

CHAT = Prompts("", "", Chat("", "<|user|>", "<|end|><|model|>", "", "<|end|>"))


class Loaded(Exception):
    pass


class Recording(Runtime):
    """Says how a stage loads its model, and ends there."""

    def load(self, checkpoint, numerics, *, control=False, **more):
        raise Loaded(control)


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (run_finetune, FinetuneSettings(0, "", Numerics(), TrainConfig(), chat=True)),
        (run_prefer, PreferSettings(0, "", Numerics(), FinetuneConfig(), chat=True)),
        (run_reward, RewardSettings(0, Numerics(), CHAT, RewardConfig(), UpdateConfig())),
    ],
)
def test_training_reads_the_control_tokens_of_a_chat_template(run, settings, tmp_path):
    """Catches: a chat model that is trained on the letters of its control tokens, and sampled with the tokens."""
    runtime = Recording(MeshConfig(), epath.Path(tmp_path))
    runtime.__dict__["mesh"] = mesh_of(1, 1, 1)
    inputs = {
        "model": epath.Path("builtin"),
        "examples": epath.Path("e"),
        "pairs": epath.Path("p"),
        "rankings": epath.Path("r"),
    }
    with pytest.raises(Loaded, match="True"):
        run(runtime, settings, inputs, {}, epath.Path(tmp_path))
    plain = dataclasses.replace(settings, **({"prompts": Prompts("", "")} if run is run_reward else {"chat": False}))
    with pytest.raises(Loaded, match="False"):
        run(runtime, plain, inputs, {}, epath.Path(tmp_path))


def test_the_recipe_says_that_prompts_are_chats(tmp_path):
    """Catches: a setting that does not reach the stage."""
    for chat in (False, True):
        config = Config()
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, task="word_problems", chat=chat))
        assert Parts(config, RunFolder(epath.Path(tmp_path)), config.model).finetune_settings().chat == chat
