"""A lock file that allows one writer per work directory, on a local disk or in a bucket. It names the process that owns it.

The owner renews the file every few seconds. If the owner ran on this machine and has ended, its lock is taken over at once.
If it runs on another machine, its lock is taken over when it has not been renewed for STALE_SECONDS. The waiting process
measures that time with its own clock, since the clocks of hosts differ. Buckets offer no exclusive creation here: when two
processes start within the same second, each reads the file again to see which of them wrote last.
"""

import contextlib
import json
import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import is_local, write_text
from lmsi_jax.core.progress import console

RENEW_SECONDS = 10.0  # between two renewals of a lock
STALE_SECONDS = 60.0  # time without a renewal after which the lock of another machine is taken over
SETTLE_SECONDS = 0.5  # time after which the last of several simultaneous writers of a lock is known
NAME = ".lock.json"
EXITING = 0x4  # Linux: PF_EXITING, among the flags of a process


@contextlib.contextmanager
def locked(folder: epath.Path) -> Iterator[None]:
    """Hold the lock of `folder` within the context. Raises UserError, with host and process, when another process holds it."""
    file, own = folder / NAME, _describe_process()
    _acquire(file, own)
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(file, own, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        if (_read(file) or {}).get("token") == own["token"]:
            file.unlink(missing_ok=True)


def _describe_process() -> dict[str, Any]:
    """Return the content of this process's lock file; `renewed` counts the renewals."""
    return {
        "host": platform.node(),
        "machine": _machine(),
        "process": os.getpid(),
        "process_started": _started(os.getpid()),
        "token": secrets.token_hex(8),
        "renewed": 0,
    }


def _machine() -> str:
    """Return an id of this boot and of the name space of its process numbers, since several machines may share a host name."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(process: int) -> str | None:
    """Return when a process of this machine started, in ticks since boot; None when there is no such process.

    A process that was killed is none, although it is listed until its memory is freed and its parent has asked for its status,
    which the first process of a container may never do.
    """
    if Path("/proc/self/stat").exists():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            has_ended = fields[0] in "ZX" or int(fields[6]) & EXITING
            return None if has_ended else fields[19]
        return None
    with contextlib.suppress(ProcessLookupError):  # without /proc the time is unknown
        os.kill(process, 0)
        return ""
    return None


def _acquire(file: epath.Path, own: dict[str, Any]) -> None:
    content = json.dumps(own) + "\n"
    if is_local(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), open(file, "x", encoding="utf-8") as stream:
            stream.write(content)
            return
    other = _read(file)
    if other is not None and _is_alive(file, other):
        raise _in_use(file, other)
    write_text(file, content)
    time.sleep(SETTLE_SECONDS)
    holder = _read(file) or {}
    if holder.get("token") != own["token"]:
        raise _in_use(file, holder)


def _in_use(file: epath.Path, holder: dict[str, Any]) -> UserError:
    return UserError(
        f"{file.parent} is in use: process {holder.get('process')} on host {holder.get('host')} writes there. Wait until it "
        f"ends, stop it, or choose another --workdir."
    )


def _read(file: epath.Path) -> dict[str, Any] | None:
    """Return the content of the lock file; None without a file. A partly written file is read again; {} if still partial."""
    for _ in range(2):
        try:
            content = json.loads(file.read_text())
            return content if isinstance(content, dict) else {}
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(SETTLE_SECONDS)
    return {}


def _is_alive(file: epath.Path, other: dict[str, Any]) -> bool:
    """Return whether the process that wrote this lock still runs."""
    process = other.get("process")
    if other.get("machine") == _machine() and isinstance(process, int):
        started = _started(process)
        return started is not None and started == other.get("process_started")
    console.print(f"{file.parent} is locked by host {other.get('host')}; waiting {STALE_SECONDS:.0f} s for a sign of life")
    deadline = time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, STALE_SECONDS / 10))
        current = _read(file)
        if current is None:
            return False
        if current != other:
            return True
    return False


def _renew(file: epath.Path, own: dict[str, Any], stop: threading.Event) -> None:
    """Renew the lock until `stop` is set. If it was taken over while this process was suspended, end this process."""
    while not stop.wait(RENEW_SECONDS):
        with contextlib.suppress(OSError, UserError):  # on a full disk, the write of a result stops the run
            current = _read(file)
            if current is not None and current.get("token") != own["token"]:
                console.print(f"{file.parent} was taken over by process {current.get('process')} on host {current.get('host')}")
                os.kill(os.getpid(), signal.SIGTERM)
                return
            own["renewed"] += 1
            write_text(file, json.dumps(own) + "\n")
