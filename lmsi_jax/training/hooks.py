"""Hooks of the training loop: measurements besides the loss, and early stopping."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from lmsi_jax.core.metrics import Mean
from lmsi_jax.core.records import Record, finite
from lmsi_jax.formatting.packing import PackedRows
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import jit
from lmsi_jax.training.objective import Batch, Objective, place_batch, place_prompts


@dataclasses.dataclass(frozen=True)
class Hook:
    """A measurement every `every` steps and after the last step.

    `measure` receives what the objective computes with (parameters, or a model with adapters) and the number of the step. It
    returns values by name, which are added to the metrics of the step.
    """

    every: int
    measure: Callable[[Any, int], Mapping[str, float]]

    def due(self, step: int, last: int) -> bool:
        return step % self.every == 0 or step == last


@dataclasses.dataclass(frozen=True)
class Best:
    """The metric by which the best state is kept.

    Training returns that state instead of the last one if `return_best`, or with `if_stopped` if it ended early.
    """

    metric: str = "loss"
    mode: Literal["min", "max"] = "min"
    return_best: bool = False
    if_stopped: bool = False


# Metrics of the steps so far at which a hook ran, oldest first -> whether training ends.
Stop = Callable[[Sequence[Record]], bool]


def never(history: Sequence[Record]) -> bool:
    """Never end training before the last step."""
    return False


def early_stop(best: Best, patience: int) -> Stop:
    """Return a rule that ends training when the metric of `best` has not improved for `patience` measurements.

    The rule has no state of its own: it reads only the metrics so far.
    """

    def stop(history: Sequence[Record]) -> bool:
        find, worst = (min, math.inf) if best.mode == "min" else (max, -math.inf)
        measured = [finite(row[best.metric]) for row in history if best.metric in row]
        values = [worst if value is None else value for value in measured]
        if not values:
            return False
        return len(values) - 1 - values.index(find(values)) >= patience

    return stop


def losses(mesh: Mesh, objective: Objective, rows: PackedRows, batch: int) -> Callable[[Any], list[tuple[float, float]]]:
    """Return a function of parameters: the (total, count) of the loss of each `batch` of `rows`, in their order."""
    prompts = place_prompts(mesh, rows.prompts)

    @jit
    def loss(params: Any, part: Batch) -> Mean:
        return objective(params, part)[0]

    def parts() -> Iterator[Batch]:
        for first in range(0, len(rows), batch):
            chosen = np.arange(first, first + batch)
            arrays = rows.take(chosen % len(rows))
            padding = chosen >= len(rows)  # rows that only fill the last batch have weight 0
            arrays["weights"] = arrays["weights"] * ~padding[:, None]
            yield place_batch(mesh, Batch(arrays, prompts))

    def measure(params: Any) -> list[tuple[float, float]]:
        means = [loss(params, part) for part in parts()]
        totals, counts = jax.device_get(([mean.total for mean in means], [mean.count for mean in means]))
        return [(float(total), float(count)) for total, count in zip(totals, counts, strict=True)]

    return measure


def validation_loss(mesh: Mesh, objective: Objective, rows: PackedRows, batch: int, every: int) -> Hook:
    """Return a hook that measures the mean loss over all of `rows` as "validation_loss", `batch` rows at a time."""
    of_batches = losses(mesh, objective, rows, batch)

    def measure(params: Any, step: int) -> Mapping[str, float]:
        totals, counts = zip(*of_batches(params), strict=True)
        return {"validation_loss": math.fsum(totals) / math.fsum(counts)}

    return Hook(every, measure)
