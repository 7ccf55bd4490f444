"""One writer for a work directory."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from lmsi_jax.core import lock
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.lock import NAME, locked

HOLDER = """
import sys, time
from etils import epath
from lmsi_jax.core.lock import locked
with locked(epath.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch):
    """Waits of a second in place of a minute."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)


def test_a_second_process_is_told_who_is_there_and_takes_over_when_that_one_is_killed(tmp_path):
    """Catches: two runs that write one directory; a lock that a killed run leaves for ever."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"is in use: process {process.pid} on host {os.uname().nodename} writes there"):
        locked(epath.Path(tmp_path)).__enter__()
    process.kill()
    process.wait()
    start = time.monotonic()
    with locked(epath.Path(tmp_path)):
        assert time.monotonic() - start < 5, "a process of this machine is known to have ended"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_killed_process_that_nobody_waits_for_has_ended(tmp_path, quick):
    """Catches: a run in a container that cannot be resumed, since the killed one is listed there for ever."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays listed
    with locked(epath.Path(tmp_path)):
        pass
    process.wait()


def test_a_process_number_that_came_again_is_another_process(tmp_path, quick):
    """Catches: a lock of before a restart that is never taken over, as its process number is in use again."""
    own = lock._describe_process()
    (tmp_path / NAME).write_text(json.dumps({**own, "process_started": "1", "token": "x"}))
    with locked(epath.Path(tmp_path)):
        pass


def test_a_lock_of_another_machine_is_watched(tmp_path, quick):
    """Catches: a dead host's lock that stays, or a living host's that is taken over; clocks of two hosts compared."""
    file = tmp_path / NAME
    other = {**lock._describe_process(), "machine": "elsewhere", "host": "elsewhere", "token": "x"}
    file.write_text(json.dumps(other))
    with locked(epath.Path(tmp_path)):
        assert json.loads(file.read_text())["host"] == os.uname().nodename
    file.write_text(json.dumps(other))
    renewing = threading.Timer(0.3, lambda: file.write_text(json.dumps({**other, "renewed": 1})))
    renewing.start()
    with pytest.raises(UserError, match="process .* on host elsewhere writes there"):
        locked(epath.Path(tmp_path)).__enter__()
    renewing.join()


def test_the_holder_renews_and_ends_when_it_was_taken_over(tmp_path, quick, monkeypatch):
    """Catches: a process that stood still for long and then writes beside the one that took its place."""
    signals = []
    monkeypatch.setattr(lock.os, "kill", lambda process, number: signals.append((process, number)))
    file = tmp_path / NAME
    with locked(epath.Path(tmp_path)):
        first = json.loads(file.read_text())
        time.sleep(0.5)
        assert json.loads(file.read_text())["renewed"] > first["renewed"]
        file.write_text(json.dumps({**first, "token": "other"}))
        time.sleep(0.5)
        assert signals == [(os.getpid(), lock.signal.SIGTERM)]
    assert json.loads(file.read_text())["token"] == "other", "the lock of the other one stays"


def test_a_lock_file_that_was_cut_off_is_taken_over(tmp_path, quick):
    """Catches: a traceback, or a directory locked for ever, by a lock that was killed while it was written."""
    (tmp_path / NAME).write_text('{"host": ')
    with locked(epath.Path(tmp_path)):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
