"""The report of a run."""

import dataclasses
from typing import Any

from lmsi_jax.analysis.report import write_report
from lmsi_jax.core.files import write_text
from lmsi_jax.core.records import dumps
from lmsi_jax.core.settings import to_dict
from lmsi_jax.pipeline.run_folder import Files


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """The config, which the report shows. `stages` are those of a part of a run, whose folder has no config of its own yet."""

    config: Any
    stages: tuple[str, ...] = ()


def run_report(runtime: object, settings: ReportSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Write `report` about the work directory that contains it."""
    if settings.stages:
        write_text(outputs["config"], dumps(to_dict(settings.config)) + "\n")
        write_text(outputs["history"], dumps({"recipe": "self_improve", "stages": settings.stages}) + "\n")
    write_report(outputs["report"].parent)
