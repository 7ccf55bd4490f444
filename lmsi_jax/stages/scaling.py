"""Gathers the losses of scaling runs, and fits laws to them."""

import dataclasses

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.scaling.records import fit_record

# The three approaches of Hoffmann et al. 2022. The first reads the losses during training; the others need last losses, since
# the learning rate has not decayed before.
APPROACHES = {"chinchilla_envelope": "curves", "chinchilla_isoflop": "points", "chinchilla_parametric": "points"}


@dataclasses.dataclass(frozen=True)
class GridRun:
    """A training run: its model's parameters, its budget, and its learning rate as a multiple of that of the rule."""

    name: str
    params: int
    embedding_params: int
    flops_per_token: float
    budget: float  # floating-point operations that the length was chosen for
    learning_rate: float
    rate_factor: float


@dataclasses.dataclass(frozen=True)
class PointSettings:
    """The runs whose curves are gathered."""

    runs: tuple[GridRun, ...]


def run_points(runtime: object, settings: PointSettings, inputs: Files, outputs: Files, scratch: object) -> None:
    """Write the last loss of each run as `points`, all of its losses as `curves`, and those of other learning rates as `rates`.

    The inputs are the curves of the runs by their names. `rates` also has the run with the rate of the rule.
    """
    rows = {run.name: [_row(run, row) for row in read_jsonl(inputs[run.name])] for run in settings.runs}
    ruled = [run for run in settings.runs if run.rate_factor == 1]
    tried = {(run.params, run.budget) for run in settings.runs if run.rate_factor != 1}
    write_jsonl(outputs["points"], (rows[run.name][-1] for run in ruled))
    write_jsonl(outputs["curves"], (row for run in ruled for row in rows[run.name]))
    rates = [rows[run.name][-1] for run in settings.runs if (run.params, run.budget) in tried]
    write_jsonl(outputs["rates"], sorted(rates, key=lambda row: (row["params"], row["rate_factor"])))


def _row(run: GridRun, measured: Record) -> Record:
    """Return a measurement as a row for a fit."""
    facts = {"run": run.name, "params": run.params, "embedding_params": run.embedding_params, "budget": run.budget}
    rate = {"learning_rate": run.learning_rate, "rate_factor": run.rate_factor}
    return {**facts, **measured, "flops": measured["tokens"] * run.flops_per_token, **rate}


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """The number of resampled data sets for intervals."""

    resamples: int


def run_fits(runtime: object, settings: FitSettings, inputs: Files, outputs: Files, scratch: object) -> None:
    """Fit the three approaches to `points` and `curves`, and write a record of each; with `error` where it cannot be fitted."""
    write_jsonl(outputs["fits"], [_fitted(law, str(inputs[name]), settings.resamples) for law, name in APPROACHES.items()])


def _fitted(law: str, file: str, resamples: int) -> Record:
    try:
        return fit_record(law, file, "total", resamples)
    except UserError as error:
        return {"law": law, "error": str(error)}
