"""Checks during reinforcement learning: the votes of the present model on probe questions and their reworded twins."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmsi_jax.core import rng
from lmsi_jax.core.files import read_json, write_text
from lmsi_jax.core.records import Record
from lmsi_jax.rl.signals import alarm, signals
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
            own, of_twins = (self._rollouts.answers(rows, model, key) for rows in (self._rollouts.probes, self._rollouts.twins))
            before = self._before(step)
            measured = signals(own, of_twins, None if before is None else before["winners"])
            record = {"step": step, "signals": measured, "winners": _winners(own)}
            processes.by_first(lambda: write_text(file, json.dumps(record) + "\n"))
        return {f"{PREFIX}{name}": value for name, value in read_json(file)["signals"].items()}

    def alarm(self, rows: Sequence[Record]) -> str:
        """Return why training has to end, from the metrics of its checks, or ""."""
        history: list[Mapping[str, float]] = [read_json(self._file(0))["signals"]]
        for row in rows:
            measured = {name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)}
            history += [measured] if measured else []
        return alarm(history, len(self._rollouts.probes))

    def verdict(self, rows: Sequence[Record]) -> Record:
        """Return the record of the guard: why and after which step it ended the run, and the step whose state was kept."""
        checks = [row for row in rows if f"{PREFIX}twin_agreement" in row]
        reason = self.alarm(checks)
        last = checks[-1]["step"] if checks else 0
        best = max(checks, key=lambda row: row[f"{PREFIX}twin_agreement"])["step"] if reason else last
        return {"alarm": reason, "step": last, "kept": best}

    def _file(self, step: int) -> epath.Path:
        return self._scratch / f"{step:06d}.json"

    def _before(self, step: int) -> Record | None:
        earlier = sorted(file for file in self._scratch.glob("*.json") if file.name < self._file(step).name)
        return read_json(earlier[-1]) if earlier else None


def _winners(answers: Sequence[Sequence[str | None]]) -> list[str | None]:
    return [vote(each, tie="abstain").answer for each in answers]
