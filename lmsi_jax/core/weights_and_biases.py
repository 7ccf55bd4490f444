"""Sends the metrics of a run to Weights & Biases, beside the files of its work directory (`pip install 'lmsi_jax[wandb]'`)."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from lmsi_jax.core import metric_log
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import fingerprint


@contextlib.contextmanager
def mirrored(project: str, workdir: str, config: Mapping[str, Any]) -> Iterator[None]:
    """Send what metric writers write inside the context to one W&B run of a project.

    The run is named after the work directory and goes on when the work directory does. Each stage has its own steps. W&B takes
    its login, its address and its mode (WANDB_MODE=offline) from its own places. Raises UserError when it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError("--wandb needs the library wandb: pip install 'lmsi_jax[wandb]'.") from error
    name = workdir.rstrip("/").rpartition("/")[2]
    run = wandb.init(project=project, name=name, id=fingerprint(workdir), resume="allow", config=dict(config))
    known: set[str] = set()

    def send(stage: str, step: int, scalars: Mapping[str, float]) -> None:
        if stage not in known:
            run.define_metric(f"{stage}/step", hidden=True)
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            known.add(stage)
        run.log({f"{stage}/{name}": value for name, value in scalars.items()} | {f"{stage}/step": step})

    metric_log.mirrors.append(send)
    try:
        yield
    finally:
        metric_log.mirrors.remove(send)
        run.finish()
