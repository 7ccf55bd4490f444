"""What stages share while a process lives: the mesh, the tokenizer, the parameters in use."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from lmsi_jax import model
from lmsi_jax.checkpoint import folder
from lmsi_jax.core.config import Config, ModelConfig
from lmsi_jax.formatting.mixed import Prompts
from lmsi_jax.sharding import Mesh, make_mesh
from lmsi_jax.tasks.registry import Task, load_task
from lmsi_jax.tokenizers import Tokenizer


class Session:
    """Loads each thing when it is first needed; the parameters of one checkpoint at a time."""

    def __init__(self, config: Config):
        self.config = config
        self._loaded: tuple[tuple[str, str], model.Params | model.Quantized] | None = None

    @functools.cached_property
    def mesh(self) -> Mesh:
        return make_mesh(self.config.mesh)

    @functools.cached_property
    def task(self) -> Task:
        return load_task(self.config.data)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return folder.load_tokenizer(self.config.model.checkpoint, control=self.config.data.chat)

    @functools.cached_property
    def prompts(self) -> Prompts:
        chat = folder.load_chat_template(self.config.model.checkpoint) if self.config.data.chat else None
        return Prompts.of(self.task, chat)

    @functools.cached_property
    def model_config(self) -> ModelConfig:
        stored = folder.load_config(self.config.model.checkpoint)
        dtype = self.config.model.dtype
        return stored if dtype == "stored" else dataclasses.replace(stored, dtype=dtype)

    def temperature(self, number: int) -> float:
        """The sampling temperature of the model after round `number`; 0 is the base, which may itself be fine-tuned already."""
        sample = self.config.sample
        finetuned = number > 0 or folder.is_finetuned(self.config.model.checkpoint)
        return sample.temperature_after if finetuned else sample.temperature

    def params(self, checkpoint: str) -> model.Params:
        """The parameters of a checkpoint folder, or of "builtin"."""
        return self._load(checkpoint, "stored", lambda: folder.load_params(checkpoint, self.mesh))

    def decoding_params(self, checkpoint: str) -> model.Params | model.Quantized:
        """The same, as the config's `sample.weights` and `sample.gather` have them in decoding."""
        sample = self.config.sample
        mesh = self.mesh.gathered if sample.gather else self.mesh
        if sample.weights == "int8":
            return self._load(checkpoint, "int8", lambda: model.quantize(folder.load_params(checkpoint, mesh)))
        if mesh is self.mesh:
            return self.params(checkpoint)
        return self._load(checkpoint, "gathered", lambda: folder.load_params(checkpoint, mesh))

    def _load(self, checkpoint: str, form: str, load: Callable[[], Any]) -> Any:
        if self._loaded is None or self._loaded[0] != (checkpoint, form):
            self._loaded = None  # let go of the old ones before the new ones come
            self._loaded = ((checkpoint, form), load())
        return self._loaded[1]
