"""Pre-training of a base model from scratch: corpus, tokenizer, training with its validation loss."""

from typing import Any

from lmsi_jax.model import transformer
from lmsi_jax.pipeline.recipe import Check, Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import BaseConfig, PretrainConfig
from lmsi_jax.recipes.parts import report
from lmsi_jax.stages import checks, pretrain
from lmsi_jax.training.batches import check_batch


def base_stages(config: BaseConfig, seed: int, folder: RunFolder, name: str) -> list[Stage]:
    """Return the stages that train a base model of this name."""
    corpus, held_out, tokenizer = folder.corpus("train"), folder.corpus("held_out"), folder.tokenizer
    texts = pretrain.CorpusSettings(seed, config.corpus, config.held_out_documents)
    vocabulary = pretrain.TokenizerSettings(config.model.vocab, config.tokenizer_documents)
    training = pretrain.PretrainSettings(seed, config.model, config.train, config.validate_every)
    inputs, outputs = {"corpus": corpus, "held_out": held_out, "tokenizer": tokenizer}, {"model": folder.model(name)}
    return [
        Stage("corpus", pretrain.run_corpus, texts, {}, {"train": corpus, "held_out": held_out}),
        Stage("tokenizer", pretrain.run_tokenizer, vocabulary, {"corpus": corpus}, {"tokenizer": tokenizer}),
        Stage("train", pretrain.run_pretrain, training, inputs, outputs, on_mesh=True),
    ]


def stages(config: PretrainConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. They train the model "base"."""
    result = base_stages(config, config.seed, folder, "base")
    return [*result, report(config, folder, result)]


def check_base(config: BaseConfig, runtime: Runtime, max_replicated_gib: float, section: str) -> str:
    """Check that parameters and batches divide over the mesh, and that no large parameter is replicated."""
    checks.check_parameters(runtime.mesh, config.model, max_replicated_gib)
    check_batch(runtime.mesh, config.train, section)
    parameters = transformer.count_params(config.model)
    return f"{parameters:,} parameters and batches of {config.train.batch} rows divide over the mesh"


CHECKS = (
    Check[Any]("devices", checks.devices),
    Check[Any]("sharding", lambda c, runtime: check_base(c, runtime, c.mesh.max_replicated_gib, "train")),
    Check[Any]("memory", lambda config, runtime: checks.describe_training_memory(runtime.mesh, config.model, config.train)),
)
RECIPE = Recipe("pretrain", stages, CHECKS)
