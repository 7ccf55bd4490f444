"""A run that is stopped at any instant and started again leaves the records of one that was not."""

import random
import signal
import subprocess
import time

import pytest

from tests.runs import environment, records, run_workdir


def start(workdir, cache):
    return subprocess.Popen(
        run_workdir(workdir), stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(cache), text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_instants(finished, compile_cache, tmp_path):
    """Catches: a half-written file that is taken for whole, a stage marked done too early, state that is lost."""
    began = time.monotonic()
    subprocess.run(run_workdir(finished[0]), capture_output=True, env=environment(compile_cache), check=True)
    start_up = time.monotonic() - began  # of a process that then finds nothing to do
    rng, workdir, kills = random.Random(5), tmp_path / "run", 0
    while kills < 5:
        process = start(workdir, compile_cache)
        try:
            process.communicate(timeout=0.7 * start_up + rng.uniform(0, 0.7 * start_up))
            workdir = tmp_path / f"run-after-{kills}-kills"  # it came to its end first: go on with another
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    process = start(workdir, compile_cache)
    _, stderr = process.communicate(timeout=250)
    assert process.returncode == 0, stderr
    for folder in tmp_path.iterdir():
        assert records(folder) == records(finished[0]), folder


@pytest.mark.slow
def test_signals_end_cleanly_and_resume(finished, compile_cache, tmp_path):
    """Catches: a stack trace on Ctrl-C, or a preempted run that cannot go on."""
    workdir = tmp_path / "run"
    for number, status, reached in ((signal.SIGINT, 130, "eval/base/cot.jsonl"), (signal.SIGTERM, 143, "rounds/1/votes.jsonl")):
        process = start(workdir, compile_cache)
        deadline = time.monotonic() + 120
        while not (workdir / reached).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == status, stderr
        assert "Interrupted. Start the same command again" in stderr
        assert "Traceback" not in stderr
    again = start(workdir, compile_cache)
    again.communicate(timeout=250)
    assert again.returncode == 0
    assert records(workdir) == records(finished[0])


def test_two_runs_of_one_work_directory(finished, compile_cache, tmp_path):
    """Catches: a requeued job that writes beside the one that still runs; a lock that outlives its run."""
    workdir = tmp_path / "run"
    first = start(workdir, compile_cache)
    deadline = time.monotonic() + 120
    while not (workdir / ".lock.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    second = start(workdir, compile_cache)
    _, stderr = second.communicate(timeout=120)
    assert second.returncode == 2 and f"{workdir} is in use: process {first.pid} on host" in stderr, stderr
    _, stderr = first.communicate(timeout=250)
    assert first.returncode == 0, stderr
    assert records(workdir) == records(finished[0]) and not (workdir / ".lock.json").exists()
