"""Batches as a function of the step number, so that a resumed run sees the same batches."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.packing import PackedRows
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.objective import Batch, place_prompts

# (step number, counted from 1; a function that returns the model before that step) -> batch on the host
Batches = Callable[[int, Callable[[], Any]], Batch]


def batch_rows(seed: int, step: int, num_rows: int, batch: int) -> np.ndarray:
    """Return the `batch` row indices of step `step`, counted from 0: a pure function of (seed, step).

    Each epoch is a random permutation of all rows. Epochs are concatenated, so one batch may contain rows of two epochs.
    """
    position = np.arange(step * batch, (step + 1) * batch)
    epochs = position // num_rows
    order = {e: np.random.default_rng((seed, int(e))).permutation(num_rows) for e in np.unique(epochs)}
    return np.array([order[e][i] for e, i in zip(epochs, position % num_rows, strict=True)])


def shuffled(mesh: Mesh, rows: PackedRows, batch: int, seed: int) -> Batches:
    """Return batches of all rows in random order, epoch after epoch. Raises UserError when there are no rows."""
    if len(rows) == 0:
        raise UserError("There is nothing to train on: no path was kept. Look at votes.jsonl for the reason codes.")
    prompts = place_prompts(mesh, rows.prompts)
    return lambda step, model: Batch(rows.take(batch_rows(seed, step - 1, len(rows), batch)), prompts)


def easy_first(mesh: Mesh, rows: PackedRows, config: TrainConfig, seed: int) -> Batches:
    """Return batches of a curriculum (Bengio et al. 2009): random rows among the first ones, whose number grows with the step.

    It grows linearly, from `config.curriculum` of the rows to all of them after `config.curriculum_end` of the steps. `rows`
    are in the order of their difficulty. Raises UserError when there are no rows.
    """
    if len(rows) == 0:
        raise UserError("There is nothing to train on: no path was kept. Look at votes.jsonl for the reason codes.")
    prompts = place_prompts(mesh, rows.prompts)

    def batch(step: int, model: Callable[[], Any]) -> Batch:
        open_rows = eligible(step - 1, len(rows), config)
        drawn = np.random.default_rng((seed, step)).choice(open_rows, config.batch, replace=open_rows < config.batch)
        return Batch(rows.take(drawn), prompts)

    return batch


def eligible(step: int, rows: int, config: TrainConfig) -> int:
    """Return how many of the easiest rows a curriculum draws from at a step, counted from 0."""
    grown = min(step / (config.curriculum_end * config.steps), 1.0) if config.curriculum_end else 1.0
    return max(1, round(rows * (config.curriculum + (1 - config.curriculum) * grown)))


def check_batch(mesh: Mesh, config: TrainConfig, name: str) -> None:
    """Raise UserError when the rows of a microbatch do not divide over the mesh; `name` is the section of `config`."""
    shards, rows = mesh.size("batch"), config.batch // config.accumulate
    if rows % shards:
        raise UserError(
            f"{name}.batch={config.batch} in {config.accumulate} microbatch(es) of {rows} rows does not divide over "
            f"data x fsdp = {shards} devices; set --config.{name}.batch to a multiple of {shards * config.accumulate}, or "
            f"a smaller --config.mesh.data."
        )
