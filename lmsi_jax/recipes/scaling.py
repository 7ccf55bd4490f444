"""Scaling runs: models of several sizes and lengths are trained on one corpus, and scaling laws are fitted to their losses."""

import dataclasses
from typing import Any

from lmsi_jax.analysis.scaling import scaling_table
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.flops import training_flops
from lmsi_jax.pipeline.recipe import Check, Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import ScalingConfig
from lmsi_jax.recipes.parts import report
from lmsi_jax.recipes.pretrain import text_stages, training_stage
from lmsi_jax.stages import checks
from lmsi_jax.stages.pretrain import PretrainSettings
from lmsi_jax.stages.scaling import FitSettings, GridRun, PointSettings, run_fits, run_points
from lmsi_jax.training.batches import check_batch

WARMUP = 0.1  # the longest warmup, as a share of a run's steps


def architecture(config: ScalingConfig, width: int, layers: int) -> ModelConfig:
    """Return the architecture of a size. Raises UserError when its width is no multiple of the width of a head."""
    reference = config.model
    if width % reference.head_width:
        raise UserError(f"widths has {width}, which is not a multiple of model.head_width={reference.head_width}.")
    heads = width // reference.head_width
    shared = max(1, heads * reference.kv_heads // reference.heads)
    while heads % shared:
        shared -= 1
    mlp = width * reference.mlp // reference.width
    return dataclasses.replace(reference, width=width, layers=layers, heads=heads, kv_heads=shared, mlp=mlp)


def grid(config: ScalingConfig) -> list[tuple[GridRun, PretrainSettings]]:
    """Return all runs: of each size, one for each budget whose number of tokens is within bounds, the cheapest first.

    Raises UserError when a size has no run.
    """
    train, of_reference = config.train, transformer.count_params(config.model)
    per_step = train.batch * train.row_length  # tokens, padding included
    runs = []
    for width, depth in zip(config.widths, config.depths, strict=True):
        model = architecture(config, width, depth)
        params, flops = transformer.count_params(model), training_flops(model, train.batch, train.row_length)
        rate = train.learning_rate * (of_reference / params) ** config.rate_exponent
        lengths = {budget: round(budget / flops) for budget in sorted(config.flops)}
        inside = [b for b, steps in lengths.items() if config.tokens[0] <= steps * per_step <= config.tokens[1]]
        if not inside:
            counts = ", ".join(f"{steps * per_step:.2g}" for steps in lengths.values())
            raise UserError(
                f"A model of width {width} and {depth} layers has no run: the budgets flops={config.flops} give it {counts} "
                f"tokens, and tokens={config.tokens} are its bounds. Change one of them."
            )
        for budget in inside:
            for factor in (1.0, *(config.rate_factors if budget == inside[0] else ())):
                name = f"{width}x{depth}-{budget:.3g}".replace("+", "") + (f"-rate-{factor:g}" if factor != 1 else "")
                settings = _training(config, model, lengths[budget], rate * factor)
                embedding = model.vocab * model.width * (1 if model.tied_embedding else 2)
                runs.append((GridRun(name, params, embedding, flops / per_step, budget, rate * factor, factor), settings))
    return sorted(runs, key=lambda run: (run[0].budget, run[0].params))


def _training(config: ScalingConfig, model: ModelConfig, steps: int, rate: float) -> PretrainSettings:
    warmup = min(config.train.warmup, int(WARMUP * steps))
    train = dataclasses.replace(config.train, steps=steps, learning_rate=rate, warmup=warmup)
    return PretrainSettings(config.seed, model, train, validate_every=max(1, steps // config.measurements))


def stages(config: ScalingConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages: the texts, a training run for each point of the grid, and the fits."""
    runs, texts = grid(config), text_stages(config, config.seed, folder)
    trained = [training_stage(f"train/{run.name}", settings, "", folder, run.name) for run, settings in runs]
    points, curves, rates, fits = (folder.scaling(name) for name in ("points", "curves", "rates", "fits"))
    gather = PointSettings(tuple(run for run, _ in runs))
    measured = {run.name: folder.curve(run.name) for run, _ in runs}
    written = {"points": points, "curves": curves, "rates": rates}
    result = [
        *texts,
        *trained,
        Stage("points", run_points, gather, measured, written),
        Stage("fits", run_fits, FitSettings(config.resamples), {"points": points, "curves": curves}, {"fits": fits}),
    ]
    return [*result, report(config, folder, result)]


def check_grid(config: ScalingConfig, runtime: Runtime) -> str:
    """Check that every size and its batches divide over the mesh."""
    runs = grid(config)
    for _, settings in runs:
        checks.check_parameters(runtime.mesh, settings.model, config.mesh.max_replicated_gib)
    check_batch(runtime.mesh, config.train, "train")
    sizes = [run.params for run, _ in runs]
    total = sum(run.budget for run, _ in runs)
    return f"{len(runs)} runs of {min(sizes):,} to {max(sizes):,} parameters, {total:.3g} operations in all"


def largest(config: ScalingConfig) -> ModelConfig:
    """Return the architecture of the size with the most parameters."""
    return max((settings.model for _, settings in grid(config)), key=transformer.count_params)


def show(folder: RunFolder) -> None:
    """Print how the three approaches divide a budget, and how well the smaller runs predict the largest."""
    if folder.scaling("fits").exists():
        console.print(scaling_table(folder))


CHECKS = (
    Check[Any]("devices", checks.devices),
    Check[Any]("runs", check_grid),
    Check[Any]("memory", lambda c, runtime: checks.describe_training_memory(runtime.mesh, largest(c), c.train)),
)
RECIPE = Recipe("scaling", stages, CHECKS, show)
