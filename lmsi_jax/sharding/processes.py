"""Several processes that run one program, one a host: they all compute.

They take turns in writing shards, to a work directory that all of them see; all else the first of them writes for all.
"""

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lmsi_jax.core import secrets
from lmsi_jax.core.errors import Terminated, UserError

T = TypeVar("T")
_looked = 0  # how often `stop_together` was called
JOIN_SECONDS = 110  # how long processes wait for each other to begin with


def expected() -> bool:
    """Does the launcher say that there are several processes?"""
    return bool(os.environ.get("JAX_COORDINATOR_ADDRESS")) or os.environ.get("LMSI_DISTRIBUTED", "0") not in ("", "0")


def join() -> None:
    """Meet the other processes, where the launcher says that there are any. To be called before the devices are looked at.

    By JAX's own variables: JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID; with LMSI_DISTRIBUTED=1
    as JAX finds them itself on a TPU pod, under SLURM or in a Kubernetes job. Raises UserError that names who is missing.
    """
    if not expected():
        return
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    known: dict[str, Any] = {}
    if address:
        names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        missing = [name for name in names if not os.environ.get(name, "").isdigit()]
        if missing:
            raise UserError(f"JAX_COORDINATOR_ADDRESS={address} is set, and {' and '.join(missing)} must be numbers beside it.")
        count, number = (int(os.environ[name]) for name in names)
        known = {"coordinator_address": address, "num_processes": count, "process_id": number}
        roll_call(address, count, number)
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # CPUs may else meet in different orders, and wait for ever
    try:
        jax.distributed.initialize(**known, initialization_timeout=JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"This process did not meet the others at {address or 'the coordinator that JAX chose'}: "
            f"{str(error).splitlines()[0][:500]}. Start the same command on every host."
        ) from error


def roll_call(address: str, count: int, number: int, seconds: float = JOIN_SECONDS) -> None:
    """Wait until all processes are there, at the port after the coordinator's; raises UserError that names those that are not.

    JAX's own meeting ends the process when it fails, and does not say who was missing.
    """
    host, _, port = address.rpartition(":")
    meeting, deadline = (host, int(port) + 1), time.monotonic() + seconds
    missing = _call(meeting, count, deadline) if number == 0 else _answer(meeting, number, deadline)
    if missing:
        raise UserError(
            f"Of {count} processes, number {', '.join(map(str, missing))} did not come to {host}:{meeting[1]} within "
            f"{seconds:.0f} s; this is number {number}. Start the same command on every host, each with its own "
            f"JAX_PROCESS_ID, and let the port and the one before it through."
        )


def _call(meeting: tuple[str, int], count: int, deadline: float) -> list[int]:
    """Who has not come; those who have are told."""
    here: dict[int, socket.socket] = {}
    with socket.create_server(("", meeting[1])) as server:
        while len(here) < count - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError):  # nobody in time, or somebody who is none of ours
                guest, _ = server.accept()
                guest.settimeout(5.0)
                here[int(guest.makefile().readline())] = guest
    missing = sorted(set(range(1, count)) - here.keys())
    for guest in here.values():
        with guest, contextlib.suppress(OSError):
            guest.sendall((json.dumps(missing) + "\n").encode())
    return missing


def _answer(meeting: tuple[str, int], number: int, deadline: float) -> list[int]:
    """Say that this process is there; who is not, by the first process, or that one itself."""
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError, ValueError), socket.create_connection(meeting, timeout=left) as first:
            first.settimeout(left + 10)
            first.sendall(f"{number}\n".encode())
            said: list[int] = json.loads(first.makefile().readline())
            return said
        time.sleep(min(0.2, max(left, 0.0)))
    return [0]


def count() -> int:
    """How many processes run this program together."""
    return jax.process_count()


def is_first() -> bool:
    """Does this process read and write for all?"""
    return jax.process_index() == 0


def writes(number: int) -> bool:
    """Does this process write the file of this number? They take turns."""
    return number % jax.process_count() == jax.process_index()


def wait_for_all(what: str) -> None:
    """Go on when every process has come here: what each wrote can be read by all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


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
            user = isinstance(error, UserError | OSError)
            failed, said = error, json.dumps({"error": secrets.redact(str(error)), "user": user})
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


def least(value: int) -> int:
    """The smallest of the processes' values, the same on all of them: for what each measures on its own host."""
    if jax.process_count() == 1:
        return value
    values = _gather(value.to_bytes(8, "big", signed=True))
    return min(int.from_bytes(each, "big", signed=True) for each in values)


def check_equal(name: str, value: Any) -> None:
    """Raise UserError where processes were started with different values (JSON-able) of what `name` says."""
    if jax.process_count() == 1:
        return
    digests = _gather(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest())
    different = [i for i, other in enumerate(digests) if other != digests[0]]
    if different:
        raise UserError(
            f"Process(es) {', '.join(map(str, different))} of {len(digests)} differ from process 0 in {name}; start the same "
            f"command with the same files on every host."
        )


def _gather(content: bytes) -> list[bytes]:
    """What each process has of as many bytes; bytes, as JAX would cut 64-bit numbers in half."""
    rows = multihost_utils.process_allgather(np.frombuffer(content, np.uint8))
    return [bytes(row) for row in np.asarray(rows)]


def stop_together() -> None:
    """Raise Terminated in all processes, at the same call of this, once any of them was sent SIGTERM."""
    global _looked
    if jax.process_count() > 1:
        _looked += 1
        if multihost_utils.reached_preemption_sync_point(_looked):
            raise Terminated


def to_host(tree: Any) -> Any:
    """Arrays as NumPy arrays, whole on every process."""
    return jax.device_get(tree) if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)
