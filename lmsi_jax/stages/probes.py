"""Checks during reinforcement learning: the votes of the present model on probe questions and their reworded twins."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmsi_jax.core import rng
from lmsi_jax.core.files import read_json, write_text
from lmsi_jax.core.records import Record
from lmsi_jax.rl.signals import alarm, best_check, signals
from lmsi_jax.sharding import processes
from lmsi_jax.stages.rollouts import Rollouts
from lmsi_jax.voting.majority import vote

PREFIX = "probe/"  # of the names of signals in the metrics


class Probes:
    """Measures signals of collapse on the first questions of a run. It never reads a gold answer."""

    def __init__(self, rollouts: Rollouts, seed: int, scratch: epath.Path):
        self._rollouts, self._seed, self._scratch = rollouts, seed, scratch

    def measure(self, model: Any, step: int) -> dict[str, float]:
        """Return the signals of the model after `step`. Its votes are written, since the next check compares with them."""
        file = self._file(step)
        if not processes.by_first(lambda: file.exists()):
            key = rng.stage_key(self._seed, "probe", step)
            asked, before = self._rollouts, self._before(step)
            own, of_twins, of_others = (
                asked.answers(rows, model, key) if rows else [] for rows in (asked.probes, asked.twins, asked.counterparts)
            )
            measured = signals(own, of_twins, of_others, None if before is None else before["winners"])
            record = {"step": step, "signals": measured, "winners": _winners(own)}
            processes.by_first(lambda: write_text(file, json.dumps(record) + "\n"))
        return {f"{PREFIX}{name}": value for name, value in read_json(file)["signals"].items()}

    def alarm(self, rows: Sequence[Record]) -> str:
        """Return why training has to end, from the metrics of its checks, or ""."""
        return alarm([history for _, history in self._history(rows)], len(self._rollouts.probes))

    def _history(self, rows: Sequence[Record]) -> list[tuple[int, Mapping[str, float]]]:
        """Return the step and the signals of each check; the first is that of the model before training."""
        history: list[tuple[int, Mapping[str, float]]] = [(0, read_json(self._file(0))["signals"])]
        for row in rows:
            measured = {name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)}
            history += [(row["step"], measured)] if measured else []
        return history

    def verdict(self, rows: Sequence[Record]) -> Record:
        """Return the record of the guard: why and after which step it ended the run, and the step whose state was kept.

        Step 0 is the model before training, which is kept when no later check had a better agreement of twins.
        """
        history, reason = self._history(rows), self.alarm(rows)
        last = history[-1][0]
        return {"alarm": reason, "step": last, "kept": history[best_check([row for _, row in history])][0] if reason else last}

    def _file(self, step: int) -> epath.Path:
        return self._scratch / f"{step:06d}.json"

    def _before(self, step: int) -> Record | None:
        earlier = sorted(file for file in self._scratch.glob("*.json") if file.name < self._file(step).name)
        return read_json(earlier[-1]) if earlier else None


def _winners(answers: Sequence[Sequence[str | None]]) -> list[str | None]:
    return [vote(each, tie="abstain").answer for each in answers]
