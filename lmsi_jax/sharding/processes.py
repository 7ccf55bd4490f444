"""Multi-process runs: one process per host, and all of them compute.

The processes share a work directory. They take turns in writing shards; the first process writes all other files.
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
_sync_calls = 0  # calls of `stop_together`
JOIN_SECONDS = 110  # how long processes wait for each other at the start


def expected() -> bool:
    """Whether the launcher's environment variables declare several processes."""
    return bool(os.environ.get("JAX_COORDINATOR_ADDRESS")) or os.environ.get("LMSI_DISTRIBUTED", "0") not in ("", "0")


def join() -> None:
    """Connect to the other processes if the launcher declares any. Call this before anything uses JAX's devices.

    The launcher sets JAX's own variables: JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID. With
    LMSI_DISTRIBUTED=1 JAX detects them itself, on a TPU pod, under SLURM or in a Kubernetes job. Raises UserError when a
    variable is invalid or the connection fails; with JAX_COORDINATOR_ADDRESS it names the missing processes.
    """
    if not expected():
        return
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    options: dict[str, Any] = {}
    if address:
        names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        missing = [name for name in names if not os.environ.get(name, "").isdigit()]
        if missing:
            raise UserError(f"JAX_COORDINATOR_ADDRESS={address} is set, so {' and '.join(missing)} must be set to numbers too.")
        count, number = (int(os.environ[name]) for name in names)
        options = {"coordinator_address": address, "num_processes": count, "process_id": number}
        roll_call(address, count, number)
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # or CPUs may run collectives in different orders and deadlock
    try:
        jax.distributed.initialize(**options, initialization_timeout=JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"This process could not connect to the others at {address or 'the coordinator that JAX chose'}: "
            f"{str(error).splitlines()[0][:500]}. Start the same command on every host."
        ) from error


def roll_call(address: str, count: int, number: int, seconds: float = JOIN_SECONDS) -> None:
    """Wait until all `count` processes have connected at the port after the coordinator's; this one is process `number`.

    Raises UserError that names the processes that do not connect within `seconds`. JAX's own initialisation does not name
    them, and it ends the process when it fails.
    """
    host, _, port = address.rpartition(":")
    rendezvous, deadline = (host, int(port) + 1), time.monotonic() + seconds
    missing = _call(rendezvous, count, deadline) if number == 0 else _answer(rendezvous, number, deadline)
    if missing:
        raise UserError(
            f"Of {count} processes, number {', '.join(map(str, missing))} did not connect to {host}:{rendezvous[1]} within "
            f"{seconds:.0f} s; this is number {number}. Start the same command on every host, each with its own "
            f"JAX_PROCESS_ID, and open this port and the one before it in the firewall."
        )


def _call(rendezvous: tuple[str, int], count: int, deadline: float) -> list[int]:
    """Wait for the other processes to connect; return the numbers of the missing ones and send them to those connected."""
    connected: dict[int, socket.socket] = {}
    with socket.create_server(("", rendezvous[1])) as server:
        while len(connected) < count - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError):  # a timeout, or a client that is not one of our processes
                client, _ = server.accept()
                client.settimeout(5.0)
                connected[int(client.makefile().readline())] = client
    missing = sorted(set(range(1, count)) - connected.keys())
    for client in connected.values():
        with client, contextlib.suppress(OSError):
            client.sendall((json.dumps(missing) + "\n").encode())
    return missing


def _answer(rendezvous: tuple[str, int], number: int, deadline: float) -> list[int]:
    """Connect to the first process and return the missing processes that it reports; [0] if it does not answer itself."""
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError, ValueError), socket.create_connection(rendezvous, timeout=left) as first:
            first.settimeout(left + 10)
            first.sendall(f"{number}\n".encode())
            missing: list[int] = json.loads(first.makefile().readline())
            return missing
        time.sleep(min(0.2, max(left, 0.0)))
    return [0]


def count() -> int:
    """Return the number of processes that run this program together."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this is the first process, which reads and writes for all."""
    return jax.process_index() == 0


def writes(number: int) -> bool:
    """Whether this process writes the shard of this number; the processes take turns."""
    return number % jax.process_count() == jax.process_index()


def wait_for_all(what: str) -> None:
    """Block until every process has reached the barrier named `what`; then all can read what each has written."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def by_first(work: Callable[[], T]) -> T:
    """Run `work` on the first process only, and return its result on all processes. The result must be JSON-serialisable.

    An exception of `work` is raised on all processes: on the others as a UserError if it is a UserError or an OSError, and as
    a RuntimeError otherwise.
    """
    if jax.process_count() == 1:
        return work()
    message = ""
    failed: BaseException | None = None
    if is_first():
        try:
            message = json.dumps({"value": work()})
        except BaseException as error:  # every kind, as the other processes wait for the broadcast
            user = isinstance(error, UserError | OSError)
            failed, message = error, json.dumps({"error": secrets.redact(str(error)), "user": user})
    data = np.frombuffer(message.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    padded[: len(data)] = data
    answer = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))
    if failed:
        raise failed
    if "error" in answer:
        raise (UserError if answer["user"] else RuntimeError)(f"The first process failed: {answer['error']}")
    return answer["value"]


def global_min(value: int) -> int:
    """Return the smallest of the processes' values on all of them, for a value that each measures on its own host."""
    if jax.process_count() == 1:
        return value
    values = _gather(value.to_bytes(8, "big", signed=True))
    return min(int.from_bytes(each, "big", signed=True) for each in values)


def check_equal(name: str, value: Any) -> None:
    """Raise UserError when `value` (JSON-serialisable) differs between processes; `name` describes it in the message."""
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
    """Return every process's `content`, which has the same length on all. Bytes, as JAX would truncate 64-bit numbers."""
    rows = multihost_utils.process_allgather(np.frombuffer(content, np.uint8))
    return [bytes(row) for row in np.asarray(rows)]


def stop_together() -> None:
    """Raise Terminated in all processes, at the same call of this function, after any of them has received SIGTERM."""
    global _sync_calls
    if jax.process_count() > 1:
        _sync_calls += 1
        if multihost_utils.reached_preemption_sync_point(_sync_calls):
            raise Terminated


def to_host(tree: Any) -> Any:
    """Return a tree of sharded arrays as complete NumPy arrays on every process."""
    return jax.device_get(tree) if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)
