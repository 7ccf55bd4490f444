"""Joins the training rows of several tasks."""

import dataclasses

from etils import epath

from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.pipeline.run_folder import Files


@dataclasses.dataclass(frozen=True)
class MixSettings:
    """The names of the tasks, which are those of the inputs."""

    tasks: tuple[str, ...]


def run_mix(runtime: object, settings: MixSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Write the rows of all tasks to `examples`. An id gets the name of its task, since ids of two tasks may be equal."""
    rows = ({**row, "id": f"{task}/{row['id']}", "task": task} for task in settings.tasks for row in read_jsonl(inputs[task]))
    write_jsonl(outputs["examples"], rows)
