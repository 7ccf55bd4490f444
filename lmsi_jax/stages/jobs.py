"""Writes the paths of a job: on the mesh of all processes, or by a server that one process asks."""

from collections.abc import Callable
from typing import TypeVar

from lmsi_jax.decoding.config import EndpointConfig
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding import processes
from lmsi_jax.stages.decode import Job, decode_to_file
from lmsi_jax.stages.endpoint_sampling import sample_to_file

T = TypeVar("T")


def run_job(runtime: Runtime, job: Job, engine: str, endpoint: EndpointConfig) -> None:
    """Write the paths of a job: on the mesh, or by a server if the engine is "openai"."""
    if engine == "openai":
        control = job.decoding.prompts.chat is not None
        sample_to_file(runtime, job, endpoint, runtime.tokenizer(job.checkpoint, control=control))
    else:
        decode_to_file(runtime, job)


def once(engine: str, work: Callable[[], T]) -> T:
    """Do `work` once: on the first of the processes that decode together. A server's job runs on one process only."""
    return work() if engine == "openai" else processes.by_first(work)
