"""The report of a run."""

import dataclasses
from typing import Any

from lmsi_jax.analysis.report import write_report
from lmsi_jax.pipeline.run_folder import Files


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """The config, which the report shows."""

    config: Any


def run_report(runtime: object, settings: ReportSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Write `report` about the work directory that contains it."""
    write_report(outputs["report"].parent)
