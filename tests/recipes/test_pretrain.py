"""Pre-training that goes on from a checkpoint, as a user runs it."""

import subprocess

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lmsi_jax.checkpoint import folder
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.sharding.rules import use_mesh
from tests.conftest import mesh_of
from tests.runs import ROOT, command, environment

SMALL = {
    "mesh.cpu_devices": 1, "corpus.documents": 60, "held_out_documents": 8, "validate_every": 2, "train.steps": 2,
    "train.batch": 4, "train.warmup": 1, "train.learning_rate": 1e-5,
}  # fmt: skip


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint(compile_cache, tmp_path):
    """Catches: random weights in place of the checkpoint's, another tokenizer or architecture, a tokenizer that is trained."""
    run = command("pretrain", f"--config={ROOT}/configs/tiny_organism.py", f"--workdir={tmp_path}/run", "--store=none", **SMALL)
    done = subprocess.run(run, capture_output=True, text=True, env=environment(compile_cache), timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    trained = str(tmp_path / "run/models/base")
    assert folder.load_config(trained) == folder.load_config("builtin")
    assert folder.companions(trained) == folder.companions("builtin") and not (tmp_path / "run/tokenizer").exists()
    with use_mesh(mesh_of(1, 1, 1)):
        before, after = (flatten_dict(folder.load_params(name, mesh_of(1, 1, 1))) for name in ("builtin", trained))
    moved = max(float(np.abs(np.asarray(after[key]) - np.asarray(before[key])).max()) for key in before)
    assert 0 < moved < 1e-3, "two steps with a small learning rate"
    losses = [row["loss"] for row in read_jsonl(tmp_path / "run/metrics/train.jsonl") if "loss" in row]
    assert losses[0] < 3, "random weights start at ln 768 = 6.6"
    again = [word.replace("/run", "/other") for word in run] + ["--config.start=nowhere"]
    failed = subprocess.run(again, capture_output=True, text=True, env=environment(compile_cache), timeout=100, check=False)
    assert failed.returncode == 2 and "nowhere is not a checkpoint folder" in failed.stderr
