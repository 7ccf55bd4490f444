"""The prompts of a config."""

import dataclasses

from lmsi_jax.checkpoint.folder import load_chat_template
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.tasks.always_same import always_same
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.task import Task, load_task


def load_prompts(data: DataConfig, checkpoint: str) -> Prompts:
    """Return the prompts of a task. With `data.chat` they use the chat template of the checkpoint."""
    return _prompts(load_task(data), data, checkpoint)


def load_one_answer_prompts(data: DataConfig, checkpoint: str, seed: int) -> tuple[Prompts | None, str]:
    """Return (prompts whose exemplars all have one answer, that answer); see `always_same`. Without any: (None, "")."""
    task = load_task(data)
    exemplars, answer = always_same(task, data, seed)
    return (_prompts(dataclasses.replace(task, exemplars=exemplars), data, checkpoint) if exemplars else None), answer


def _prompts(task: Task, data: DataConfig, checkpoint: str) -> Prompts:
    return Prompts.of(task, load_chat_template(checkpoint) if data.chat else None)
