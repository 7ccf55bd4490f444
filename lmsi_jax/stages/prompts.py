"""The prompts of a config."""

from lmsi_jax.checkpoint.folder import load_chat_template
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.task import load_task


def load_prompts(data: DataConfig, checkpoint: str) -> Prompts:
    """Return the prompts of a task. With `data.chat` they use the chat template of the checkpoint."""
    return Prompts.of(load_task(data), load_chat_template(checkpoint) if data.chat else None)
