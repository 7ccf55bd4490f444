"""Pre-training of a base model, from scratch or from a checkpoint: corpus, tokenizer, training with its validation loss."""

import dataclasses
from typing import Any

from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.pipeline.recipe import Check, Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import BaseConfig, PretrainConfig
from lmsi_jax.recipes.parts import report
from lmsi_jax.stages import checks, pretrain
from lmsi_jax.training.batches import check_batch


def architecture(config: BaseConfig) -> ModelConfig:
    """Return the architecture to train: that of the checkpoint to go on from, in the configured number formats."""
    if not config.start:
        return config.model
    formats = {name: getattr(config.model, name) for name in ("cache_dtype", "sum_dtype")}
    return dataclasses.replace(checkpoints.load_config(config.start), **formats)


def base_stages(config: BaseConfig, seed: int, folder: RunFolder, name: str) -> list[Stage]:
    """Return the stages that train a base model of this name."""
    corpus, held_out, tokenizer = folder.corpus("train"), folder.corpus("held_out"), folder.tokenizer
    texts = pretrain.CorpusSettings(seed, config.corpus, config.held_out_documents)
    vocabulary = pretrain.TokenizerSettings(config.model.vocab, config.tokenizer_documents)
    training = pretrain.PretrainSettings(seed, architecture(config), config.train, config.validate_every)
    source = {"start": checkpoints.locate(config.start)} if config.start else {"tokenizer": tokenizer}
    inputs, outputs = {"corpus": corpus, "held_out": held_out, **source}, {"model": folder.model(name)}
    result = [Stage("corpus", pretrain.run_corpus, texts, {}, {"train": corpus, "held_out": held_out})]
    if not config.start:
        result.append(Stage("tokenizer", pretrain.run_tokenizer, vocabulary, {"corpus": corpus}, {"tokenizer": tokenizer}))
    return [*result, Stage("train", pretrain.run_pretrain, training, inputs, outputs, on_mesh=True)]


def stages(config: PretrainConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. They train the model "base"."""
    result = base_stages(config, config.seed, folder, "base")
    return [*result, report(config, folder, result)]


def check_base(config: BaseConfig, runtime: Runtime, max_replicated_gib: float, section: str) -> str:
    """Check that parameters and batches divide over the mesh, and that no large parameter is replicated."""
    model = architecture(config)
    checks.check_parameters(runtime.mesh, model, max_replicated_gib)
    check_batch(runtime.mesh, config.train, section)
    parameters = transformer.count_params(model)
    return f"{parameters:,} parameters and batches of {config.train.batch} rows divide over the mesh"


CHECKS = (
    Check[Any]("devices", checks.devices),
    Check[Any]("sharding", lambda c, runtime: check_base(c, runtime, c.mesh.max_replicated_gib, "train")),
    Check[Any]("memory", lambda c, runtime: checks.describe_training_memory(runtime.mesh, architecture(c), c.train)),
)
RECIPE = Recipe("pretrain", stages, CHECKS)
