"""What the arms of a study have in common, found from their stages before any of them runs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from etils import epath

from lmsi_jax.core.files import path_fingerprint
from lmsi_jax.core.records import fingerprint
from lmsi_jax.core.settings import traced
from lmsi_jax.pipeline.stage import Stage


@dataclass(frozen=True)
class Planned:
    """A stage of a run, and whether an earlier run of the study has an equal one, whose outputs it takes from the store."""

    stage: Stage
    is_shared: bool


def plan(runs: Iterable[Sequence[Stage]]) -> Iterator[list[Planned]]:
    """Yield the stages of each run. Two stages are equal if they run the same function, with equal settings, on equal inputs.

    An input is known by the stage that makes it, or by its content if no stage of the run does.
    """
    seen: set[str] = set()
    for stages in runs:
        made: dict[epath.Path, str] = {}
        planned = []
        for stage in stages:
            key = _key(stage, made)
            made |= {path: f"{key} {name}" for name, path in stage.outputs.items()}
            planned.append(Planned(stage, stage.is_shared and key in seen))
            seen.add(key)
        yield planned


def _key(stage: Stage, made: dict[epath.Path, str]) -> str:
    inputs = {name: made[path] if path in made else path_fingerprint(path) for name, path in stage.inputs.items()}
    return fingerprint(f"{stage.run.__module__}.{stage.run.__qualname__}", inputs, traced(stage.settings))
