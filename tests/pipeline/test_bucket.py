"""A run whose work directory is in a bucket, against a local server that stores objects as Google Cloud Storage does."""

import os
import random
import subprocess
import sys
import time

import ml_dtypes  # noqa: F401 (names bfloat16 for NumPy)
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.huggingface import Tensors
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import path_fingerprint, walk, write_bytes
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.profile import Trace
from tests.conftest import mesh_of
from tests.runs import RECORDS, environment, records, run_workdir


def bucket_records(workdir: str) -> dict[str, bytes]:
    """The records of a run in a bucket, by name."""
    root = epath.Path(workdir)
    files = [path for pattern in RECORDS for path in root.glob(pattern)]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(files)}


def lmsi(workdir, cache, cwd, *args, timeout=250.0):
    """A run in the folder `cwd`, in which nothing may appear."""
    arguments = run_workdir(workdir, *args)
    return subprocess.run(
        arguments, env=environment(cache), cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_in_a_bucket_is_that_on_a_disk_killed_at_three_instants(finished, compile_cache, bucket, tmp_path, monkeypatch):
    """Catches: a file that a run writes to a local folder called gs:, a half-written object taken for whole."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    workdir, kills = f"{bucket}/run", 0
    start = time.monotonic()
    lmsi(workdir, compile_cache, tmp_path, "--dry-run")
    start_up, rng = time.monotonic() - start, random.Random(3)
    while kills < 3:
        try:
            done = lmsi(workdir, compile_cache, tmp_path, timeout=start_up + rng.uniform(0, start_up))
            assert done.returncode == 0, done.stderr
            workdir = f"{bucket}/run-after-{kills}-kills"  # it came to its end first: go on with another
        except subprocess.TimeoutExpired:  # killed
            kills += 1
    done = lmsi(workdir, compile_cache, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written to the current folder"
    for run in epath.Path(bucket).iterdir():
        assert bucket_records(f"{bucket}/{run.name}") == records(finished[0]), run
    root = epath.Path(workdir)
    assert [row["step"] for row in read_metrics(root / "metrics" / "rounds-1-finetune.jsonl")] == [6]
    assert list((root / "metrics" / "tensorboard" / "rounds-1-finetune").glob("events*"))
    assert "loss per target token" in (root / "report.html").read_text()
    assert not (root / ".lock.json").exists() and not (root / "models/round-1/.unfinished").exists()
    again = lmsi(workdir, compile_cache, tmp_path)
    assert "nothing to do" in again.stdout, again.stdout + again.stderr


def test_a_trace_reaches_the_bucket(bucket):
    """Catches: a profile in a local folder called gs:, which is lost with the machine."""
    trace = Trace((1, 1), epath.Path(f"{bucket}/metrics"))
    trace.step()
    trace.close()
    assert any(path.name.endswith(".xplane.pb") for path in walk(epath.Path(f"{bucket}/metrics/profile")))


def test_a_fingerprint_of_a_large_object_changes_with_its_content(bucket):
    """Catches: gigabytes fetched to see whether a checkpoint changed, or a change that is not seen."""
    file, seen = epath.Path(f"{bucket}/model/large"), set()
    for content in (b"a" * 2**21, b"a" * 2**21, b"a" * (2**21 - 1) + b"b"):
        write_bytes(file, content)
        seen.add(path_fingerprint(file.parent))
    assert len(seen) == 2


def test_an_unfinished_checkpoint_in_a_bucket_is_no_checkpoint(bucket, model_config, params, tokenizer, monkeypatch):
    """Catches: parameters without the rest that are taken for a model, where a folder cannot be renamed."""
    target = epath.Path(f"{bucket}/model")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder, "publish_folder", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        folder.save(target, model_config, params, {"tokenizer.model": tokenizer.model})
    with pytest.raises(UserError, match="is incomplete, as the command that writes it was interrupted"):
        folder.locate(str(target))
    folder.save(target, model_config, params, {"tokenizer.model": tokenizer.model})
    assert folder.load_config(str(target)) == model_config
    assert folder.load_params(str(target), mesh_of(1, 1, 1)).keys() == params.keys()


def test_what_another_process_wrote_is_seen(bucket):
    """Catches: a listing that is kept for ever, by which other hosts' shards are missing or read at their old length."""
    file = epath.Path(f"{bucket}/shards/a")
    write_bytes(file, b"12")
    assert [path.name for path in file.parent.iterdir()] == ["a"] and file.read_bytes() == b"12"
    code = f"from etils import epath; epath.Path('{file}').write_bytes(b'123456789'); epath.Path('{file}2').write_bytes(b'')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert file.read_bytes() == b"123456789"
    assert sorted(path.name for path in file.parent.iterdir()) == ["a", "a2"]


def test_a_model_of_a_bucket_is_imported_and_exported(bucket, tmp_path):
    """Catches: safetensors files that are opened as if they were on this machine."""
    rng = np.random.default_rng(0)
    tensors = {"w": rng.standard_normal((6, 4)).astype(np.float32), "b": rng.standard_normal((4,)).astype("bfloat16")}
    save_file(tensors, tmp_path / "model.safetensors")
    file = epath.Path(f"{bucket}/model.safetensors")
    write_bytes(file, (tmp_path / "model.safetensors").read_bytes())
    near, far = Tensors(epath.Path(tmp_path)), Tensors(epath.Path(bucket))
    assert near.headers == far.headers
    for name, index in (("w", (slice(1, 4), slice(2, 3))), ("w", (slice(0, 6), slice(0, 4))), ("b", (slice(1, 3),))):
        np.testing.assert_array_equal(near.read(name, index), far.read(name, index))
    write_bytes(file, b"no tensors")
    with pytest.raises(UserError, match="is not a complete safetensors file"):
        Tensors(epath.Path(bucket))
