"""The points of a fit: rows of a JSON Lines file, checked and turned into columns.

A row is a training run, or a measurement during one: `params`, `tokens`, `loss`, and where a law needs them `flops` and
`unique_tokens`. `run` names the training run; without it each row is a run of its own. `embedding_params` is the part of
`params` that is subtracted when parameters are counted without embeddings.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, finite, numbered_jsonl
from lmsi_jax.scaling.laws import Array, Columns, Index

Count = Literal["total", "non_embedding"]
COUNTS = ("total", "non_embedding")
LEAST, MOST = 1e-20, 1e40  # of any field


@dataclass(frozen=True)
class Points:
    """Columns of equal length by name, and the run of each row. `count` says which parameters `params` counts."""

    columns: Columns
    runs: tuple[str, ...]
    count: Count = "total"

    def __len__(self) -> int:
        return len(self.runs)

    def take(self, rows: Index | Sequence[int]) -> "Points":
        """Return the points at these indices, or where a mask is true."""
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, int)
        columns = {name: values[index] for name, values in self.columns.items()}
        return Points(columns, tuple(self.runs[i] for i in index), self.count)

    @property
    def compute(self) -> Array | None:
        """The operations of each point: `flops`, or 6 N D (Kaplan et al. 2020, 2.1); None without these columns."""
        if "flops" in self.columns:
            return self.columns["flops"]
        if {"params", "tokens"} <= self.columns.keys():
            return 6 * self.columns["params"] * self.columns["tokens"]
        return None


def read_points(file: os.PathLike | str, fields: Sequence[str], count: Count = "total") -> Points:
    """Read the `fields` and the loss of all rows. Fields that are not needed are kept where every row has them.

    With count "non_embedding", `embedding_params` are subtracted from `params`. Raises UserError with file and line for a
    field that is missing, not a number, or out of range.
    """
    rows = list(numbered_jsonl(file))
    if not rows:
        raise UserError(f"{file} has no rows; write one JSON object a line with {', '.join(fields)} and loss.")
    needed = [*dict.fromkeys((*fields, "loss", *(["params", "embedding_params"] if count == "non_embedding" else [])))]
    optional = [name for name in ("params", "tokens", "flops", "unique_tokens") if name not in needed]
    columns: dict[str, Array] = {}
    for name in needed:
        columns[name] = np.array([_positive(row, name, f"{file} line {line}") for line, row in rows])
    for name in optional:
        if all(name in row for _, row in rows):
            columns[name] = np.array([_positive(row, name, f"{file} line {line}") for line, row in rows])
    if count == "non_embedding":
        columns["params"] = columns["params"] - columns.pop("embedding_params")
        if (columns["params"] <= 0).any():
            line = rows[int(np.argmax(columns["params"] <= 0))][0]
            raise UserError(f"{file} line {line}: embedding_params is not less than params, so no other parameter is left.")
    return Points(columns, tuple(_run(row, line, f"{file} line {line}") for line, row in rows), count)


def _run(row: Record, line: int, where: str) -> str:
    """Return the name of a row's run; a row without one is a run of its own, whose name no row can have."""
    if "run" not in row:
        return f"line {line}"
    if row["run"] is None or isinstance(row["run"], bool | list | dict):
        raise UserError(f"{where}: run is {row['run']!r:.60}, and must name a training run; leave it out if a row is a run.")
    return f"run {row['run']}"


def _positive(row: Record, name: str, where: str) -> float:
    if name not in row:
        raise UserError(f"{where}: there is no field '{name}'; the fields are {', '.join(row) or 'none'}.")
    value = finite(row[name])
    if value is None or not LEAST <= value <= MOST:
        raise UserError(f"{where}: {name} is {row[name]!r:.60}, and must be a number from {LEAST:g} to {MOST:g}.")
    return value
