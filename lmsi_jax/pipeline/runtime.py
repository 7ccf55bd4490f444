"""What the stages of a process share: the device mesh and the models that are loaded on it."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.quantize import Quantized, quantize
from lmsi_jax.model.transformer import Params, specs
from lmsi_jax.pipeline.run_folder import Files, stage_file
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import Mesh, make_mesh
from lmsi_jax.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded model. Several may be loaded at once, with different architectures and tokenizers."""

    name: str
    config: ModelConfig  # including the number formats that it computes in
    tokenizer: Tokenizer
    params: Any  # on the mesh: a tree of arrays, or Quantized


class ModelStore:
    """A cache of the `capacity` models that were used last."""

    def __init__(self, capacity: int = 1):
        self._capacity = capacity
        self._loaded: collections.OrderedDict[Any, Any] = collections.OrderedDict()

    def get(self, key: Any, load: Callable[[], Any]) -> Any:
        """Return what `load` returned for this key. Before a new model is loaded, the least recently used one is evicted."""
        if key not in self._loaded:
            while len(self._loaded) >= self._capacity:
                self._loaded.popitem(last=False)
            self._loaded[key] = load()
        self._loaded.move_to_end(key)
        return self._loaded[key]


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The mesh, the loaded models, and the name and metrics folder of the stage that runs."""

    mesh_config: MeshConfig
    metrics: epath.Path  # a folder
    stage: str = ""
    models: ModelStore = dataclasses.field(default_factory=ModelStore)
    reusable: Sequence[Files] = ()  # stored outputs of the same stage for other rows, which it may reuse

    @functools.cached_property
    def mesh(self) -> Mesh:
        return make_mesh(self.mesh_config)

    def within(self, stage: str, reusable: Sequence[Files] = (), metrics: epath.Path | None = None) -> "Runtime":
        """Return the runtime of a stage: the same mesh and models, with `stage`, `reusable` and a given `metrics` replaced."""
        inner = dataclasses.replace(self, stage=stage, reusable=reusable, metrics=metrics or self.metrics)
        inner.__dict__["mesh"] = self.mesh
        return inner

    def metrics_file(self, part: str = "") -> epath.Path:
        """Return the metrics file of the stage that runs, or of a part of it."""
        return stage_file(self.metrics, self.stage, ".jsonl", part)

    def config(self, checkpoint: epath.Path | str, numerics: Numerics) -> ModelConfig:
        """Return the architecture of a checkpoint, with the number formats to compute in."""
        return numerics.of(folder.load_config(str(checkpoint)))

    def tokenizer(self, checkpoint: epath.Path | str, *, control: bool = False) -> Tokenizer:
        """Return the tokenizer of a checkpoint. With `control` it parses names of control tokens, as chat prompts require."""
        return folder.load_tokenizer(str(checkpoint), control=control)

    def load(
        self,
        checkpoint: epath.Path | str,
        numerics: Numerics,
        *,
        control: bool = False,
        gathered: bool = False,
        weights: str = "stored",
        name: str = "",
    ) -> Model:
        """Return the model of a checkpoint folder, or of "builtin". Loaded parameters are cached.

        `control` is that of `tokenizer`. With `gathered`, parameters are replicated over mesh.fsdp, for decoding. `weights`
        is "stored", or "int8" to quantise them. The model's name is `name`, or else the checkpoint.
        """
        source = str(checkpoint)
        mesh = self.mesh.gathered if gathered else self.mesh
        config = self.config(source, numerics)

        def load() -> Params | Quantized:
            params = folder.load_params(source, mesh)
            return quantize(params, specs(config)) if weights == "int8" else params

        params = self.models.get((source, mesh.rules, weights), load)
        return Model(name or source, config, self.tokenizer(source, control=control), params)
