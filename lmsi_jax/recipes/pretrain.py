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
    training = pretrain.PretrainSettings(seed, architecture(config), config.train, config.validate_every)
    return [*text_stages(config, seed, folder), training_stage("train", training, config.start, folder, name)]


def text_stages(config: BaseConfig, seed: int, folder: RunFolder) -> list[Stage]:
    """Return the stages that write the corpus, and train a tokenizer unless that of a checkpoint is used."""
    texts = pretrain.CorpusSettings(seed, config.corpus, config.held_out_documents, config.near_copies)
    written = {name: folder.corpus(name) for name in ("train", "held_out")}
    result = [Stage("corpus", pretrain.run_corpus, texts, {}, written)]
    if config.start:
        return result
    vocabulary = pretrain.TokenizerSettings(config.model.vocab, config.tokenizer_documents)
    inputs, outputs = {"corpus": folder.corpus("train")}, {"tokenizer": folder.tokenizer}
    return [*result, Stage("tokenizer", pretrain.run_tokenizer, vocabulary, inputs, outputs)]


def training_stage(stage: str, settings: pretrain.PretrainSettings, start: str, folder: RunFolder, name: str) -> Stage:
    """Return the stage that trains the model `name`, from the checkpoint `start` or from scratch."""
    source = {"start": checkpoints.locate(start)} if start else {"tokenizer": folder.tokenizer}
    inputs = {"corpus": folder.corpus("train"), "held_out": folder.corpus("held_out"), **source}
    outputs = {"model": folder.model(name), "curve": folder.curve(name)}
    return Stage(stage, pretrain.run_pretrain, settings, inputs, outputs, on_mesh=True)


def stages(config: PretrainConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. They train the model "base"."""
    result = base_stages(config, config.seed, folder, "base")
    return [*result, report(config, folder, result)]


def check_base(config: BaseConfig, runtime: Runtime, max_replicated_gib: float, section: str) -> str:
    """Check that parameters and batches divide over the mesh, and that no large parameter is replicated."""
    model = architecture(config)
    checks.check_parameters(runtime.mesh, model, max_replicated_gib)
    check_batch(runtime.mesh, config.train, section)
    return f"{transformer.parameters_text(model)} and batches of {config.train.batch} rows divide over the mesh"


CHECKS = (
    Check[Any]("devices", checks.devices),
    Check[Any]("sharding", lambda c, runtime: check_base(c, runtime, c.mesh.max_replicated_gib, "train")),
    Check[Any]("memory", lambda c, runtime: checks.describe_training_memory(runtime.mesh, architecture(c), c.train)),
)
RECIPE = Recipe("pretrain", stages, CHECKS)
