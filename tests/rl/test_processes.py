"""Reinforcement learning in several processes, which are killed."""

import json
import time

import jax
import numpy as np
import pytest

from lmsi_jax.checkpoint import folder
from lmsi_jax.core.records import read_jsonl
from tests.conftest import mesh_of
from tests.runs import ROOT, command, together

SMALL = {
    "data.num_questions": 8, "data.terms": "(2,2)", "data.largest": 9, "data.num_eval": 2,
    "sample.max_tokens": 24, "sample.lanes": 2, "sample.slots": 2, "rl.questions": 4, "rl.paths": 4,
    "rl.rewards": "('tests.rl.of_host.reward',)", "rl.advantage": "gae", "rl.beta": 0.05, "rl.kl_where": "reward",
    "rl.kl_estimator": "k1", "rl.epochs": 2, "rl.probes": 2, "rl.probe_paths": 2, "rl.check_every": 2, "train.steps": 4,
    "train.row_length": 64, "train.warmup": 0, "train.log_every": 1,
}  # fmt: skip


def start(model, workdir, cache, count, stage="rl"):
    """The processes of one stage on a model that compiles fast; scores would take most of the time."""
    flags = (f"--config={ROOT}/configs/tiny_rl.py", f"--workdir={workdir}", "--store=none", f"--only={stage}")
    return together(command("rl", *flags, **SMALL, **{"model.checkpoint": model, "mesh.cpu_devices": 2 // count}), cache, count)


def finish(running):
    output = [process.communicate(timeout=280)[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), output


def texts(workdir):
    return [(row["step"], row["id"], row["path"], row["text"], row["reward"]) for row in read_jsonl(workdir / "rollouts.jsonl")]


@pytest.mark.slow
def test_two_processes_that_are_killed_learn_what_one_does(checkpoint, compile_cache, tmp_path):
    """Catches: hosts that sample other paths, compute their own rewards, or go on from different steps after a kill."""
    for name, count in (("one", 1), ("two", 2)):
        finish(start(checkpoint, tmp_path / name, compile_cache, count, "prepare"))
    killed = start(checkpoint, tmp_path / "two", compile_cache, 2)
    deadline = time.monotonic() + 250
    second = "two/scratch/rl/*/rollouts/000001.jsonl"
    while not list(tmp_path.glob(second)) and killed[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in killed:
        process.kill()
    output = [process.communicate(timeout=60)[0] for process in killed]
    assert list(tmp_path.glob(second)), output
    assert not (tmp_path / "two/rollouts.jsonl").exists(), "it was killed in time"
    for name, count in (("one", 1), ("two", 2)):
        finish(start(checkpoint, tmp_path / name, compile_cache, count))
    assert texts(tmp_path / "one") == texts(tmp_path / "two")
    one, two = (folder.load_params(str(tmp_path / name / "models/rl"), mesh_of(1, 1, 1)) for name in ("one", "two"))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "two/metrics/rl.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
