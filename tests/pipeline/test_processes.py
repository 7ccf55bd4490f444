"""The loop on several processes, as on the hosts of a pod: the same records, and a missing one is named."""

import json
import re
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

from lmsi_jax.checkpoint import folder
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.sharding import processes
from tests.conftest import mesh_of
from tests.runs import environment, free_port, records, run_workdir, together
from tests.server import Server

# Each process of this has other memory to spare, as hosts do.
UNLIKE_HOSTS = """
import os, sys
from lmsi_jax.decoding import memory
memory.free_bytes = lambda mesh: (3 if os.environ["JAX_PROCESS_ID"] == "0" else 60) * 2**20
from lmsi_jax.cli.main import main
main(["lmsi", *sys.argv[1:]])
"""


def start(workdir, cache, count, devices, *flags, code="", **settings):
    """The processes of one run, of `devices` devices each; `code` is what they run in place of `lmsi`."""
    command = run_workdir(workdir, *flags, **{"mesh.cpu_devices": devices, "sample.lanes": 4, **settings})
    if code:
        command[1:3] = ["-c", code]
    return together(command, cache, count)


@pytest.mark.parametrize(("present", "missing"), [([0, 1], "2"), ([1, 2], "0"), ([0, 1, 2], "")])
def test_a_missing_process_is_named(present, missing):
    """Catches: a run that hangs, or ends without a word, when a host does not come."""
    port, said = free_port(), {}

    def come(number):
        try:
            processes.roll_call(f"127.0.0.1:{port}", 3, number, seconds=2.0)
        except UserError as error:
            said[number] = str(error)

    threads = [threading.Thread(target=come, args=(number,)) for number in present]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(said) == (present if missing else [])
    assert all(f"number {missing} did not connect" in text for text in said.values()), said


@pytest.mark.slow
@pytest.mark.parametrize("count", [2])
def test_several_processes_write_what_one_does(count, compile_cache, tmp_path):
    """Catches: a host that decodes other questions, writes twice, or trains on other rows; a wait that never ends.

    One of several is told to stop while they train: all stop, and go on together.
    """
    settings = {"evaluate.self_consistency": False}  # sampling is compared already
    stopped = start(tmp_path / "several", compile_cache, count, 4 // count, **settings)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("several/metrics/rounds-1-finetune.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped[-1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=250)[0] for process in stopped]
    assert [process.returncode for process in stopped] == [143] * count, said
    assert len(list(tmp_path.glob("several/scratch/rounds-1-finetune/*/state/*"))) == 1
    for name, number in (("one", 1), ("several", count)):
        running = start(tmp_path / name, compile_cache, number, 4 // number, **settings)
        said = [process.communicate(timeout=250)[0] for process in running]
        assert [process.returncode for process in running] == [0] * number, said
    assert records(tmp_path / "one") == records(tmp_path / "several")
    mesh = mesh_of(1, 1, 1)
    one, several = (folder.load_params(str(tmp_path / name / "models/round-1"), mesh) for name in ("one", "several"))
    for path in ("embedding", "final_norm"):
        a, b = (np.asarray(list(tree[path].values())[0] if path == "final_norm" else tree[path]) for tree in (one, several))
        np.testing.assert_allclose(a, b, atol=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "several/metrics/rounds-1-finetune.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6]


@pytest.mark.slow
def test_hosts_with_other_memory_decode_in_the_same_lanes(compile_cache, tmp_path):
    """Catches: hosts that choose lanes by their own free memory, compile different programs and abort or hang."""
    settings = {"sample.lanes": 0, "data.num_questions": 12, "sample.questions_per_shard": 12}
    (first,) = start(tmp_path / "run", compile_cache, 1, 1, "--only=prepare", **settings)
    assert "prepare: done" in first.communicate(timeout=120)[0]
    running = start(tmp_path / "run", compile_cache, 2, 1, "--only=sample", code=UNLIKE_HOSTS, **settings)
    output = [process.communicate(timeout=250)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], output
    lanes = re.search(r"rounds/1/sample: (\d+) lanes of 4 slots", output[0])
    assert lanes and int(lanes[1]) < 12, output  # the host with more to spare would take all twelve
    assert len((tmp_path / "run/rounds/1/paths.jsonl").read_text().splitlines()) == 48


@pytest.mark.slow
def test_hosts_of_other_settings_are_refused(compile_cache, tmp_path):
    """Catches: hosts that were started with different flags, which train and decode different things together."""
    address, started = f"127.0.0.1:{free_port()}", []
    for number in range(2):
        names = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number)}
        arguments = run_workdir(tmp_path / "run", **{"seed": number})
        environ = {**environment(compile_cache), **names, "NPROC": "16"}
        started.append(subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    output = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [2, 2], output
    assert all("Process(es) 1 of 2 differ from process 0 in the config" in text for text in output), output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_of_several_processes_asks_the_server(compile_cache, tmp_path):
    """Catches: a run of several processes that cannot sample from a server, or pays for each path in each process."""
    server = Server()
    settings = {"sample.engine": "openai", "sample.endpoint.url": server.url, "sample.endpoint.model": "m"}
    for count, stage in ((1, "prepare"), (2, "sample")):
        running = start(tmp_path / "run", compile_cache, count, 2, f"--only={stage}", **settings)
        said = [process.communicate(timeout=100)[0] for process in running]
        assert [process.returncode for process in running] == [0] * count, said
    assert len(server.bodies) == 6 and len(list(read_jsonl(tmp_path / "run/rounds/1/paths.jsonl"))) == 24
