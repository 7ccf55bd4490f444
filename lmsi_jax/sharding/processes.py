"""Several processes that run one program, one a host: they all compute, and the first of them reads and writes for all."""

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lmsi_jax.core.errors import UserError

T = TypeVar("T")
JOIN_SECONDS = 110  # how long processes wait for each other to begin with


def join() -> None:
    """Meet the other processes, where the launcher says that there are any. To be called before the devices are looked at.

    By JAX's own variables: JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID; with LMSI_DISTRIBUTED=1
    as JAX finds them itself on a TPU pod, under SLURM or in a Kubernetes job. Raises UserError that names who is missing.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address and os.environ.get("LMSI_DISTRIBUTED", "0") in ("", "0"):
        return
    known: dict[str, Any] = {}
    if address:
        names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        missing = [name for name in names if not os.environ.get(name, "").isdigit()]
        if missing:
            raise UserError(f"JAX_COORDINATOR_ADDRESS={address} is set, and {' and '.join(missing)} must be numbers beside it.")
        count, number = (int(os.environ[name]) for name in names)
        known = {"coordinator_address": address, "num_processes": count, "process_id": number}
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # CPUs may else meet in different orders, and wait for ever
    try:
        jax.distributed.initialize(**known, initialization_timeout=JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"Process {known.get('process_id', '?')} of {known.get('num_processes', '?')} did not meet the others within "
            f"{JOIN_SECONDS} s at {address or 'the coordinator that JAX chose'}: {str(error).splitlines()[0][:500]}. Start the "
            f"same command on every host, and look at the ones that are not there."
        ) from error


def count() -> int:
    return jax.process_count()


def is_first() -> bool:
    """Does this process read and write for all?"""
    return jax.process_index() == 0


def by_first(work: Callable[[], T]) -> T:
    """Have the first process do `work` and hand what it returns, as JSON, to all; a UserError there is one everywhere."""
    if jax.process_count() == 1:
        return work()
    said = ""
    failed: BaseException | None = None
    if is_first():
        try:
            said = json.dumps({"value": work()})
        except BaseException as error:  # the others wait for an answer
            failed, said = error, json.dumps({"error": str(error), "user": isinstance(error, UserError | OSError)})
    data = np.frombuffer(said.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    padded[: len(data)] = data
    answer = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))
    if failed:
        raise failed
    if "error" in answer:
        raise (UserError if answer["user"] else RuntimeError)(f"The first process stopped: {answer['error']}")
    return answer["value"]


def to_host(tree: Any) -> Any:
    """Arrays as NumPy arrays, whole on every process."""
    return jax.device_get(tree) if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)
