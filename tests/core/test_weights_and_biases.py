"""Metrics in Weights & Biases, in its offline mode."""

import json
import struct
import subprocess

import pytest
from etils import epath

from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.weights_and_biases import mirrored
from tests.runs import command, environment


def messages(log):
    """The messages of a log in LevelDB's format: blocks of 32 KiB with parts that have a checksum, a length and a type."""
    begun, at = b"", 7
    while at + 7 <= len(log):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", log[at + 4 : at + 7])
        begun += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def test_the_metrics_of_a_run_are_sent_too(tmp_path, monkeypatch):
    """Catches: a stage whose steps are refused since another has gone further, a run that begins anew when it is resumed."""
    pytest.importorskip("wandb", reason="install the extra 'peers'")
    from wandb.proto import wandb_internal_pb2

    for name, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    for start in (0, 2):  # the run is resumed
        with mirrored("ours", str(tmp_path / "run"), {"seed": 7}):
            for stage in ("rounds-1-sample", "rounds-1-finetune"):
                writer = MetricWriter(epath.Path(tmp_path / f"{stage}.jsonl"), resume_step=start)
                for step in (start + 1, start + 2):
                    writer.write(step, loss=1 / step)
                writer.close()
    MetricWriter(epath.Path(tmp_path / "later.jsonl")).write(1, loss=0.0)  # nothing is sent any more
    sent, ids = {}, set()
    for file in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for content in messages(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            ids |= {record.run.run_id} - {""}
            for item in record.history.item:
                sent.setdefault(item.key or item.nested_key[0], []).append(json.loads(item.value_json))
    assert len(ids) == 1
    for stage in ("rounds-1-sample", "rounds-1-finetune"):
        assert sent[f"{stage}/step"] == [1, 2, 3, 4] and sent[f"{stage}/loss"] == [1.0, 1 / 2, 1 / 3, 1 / 4]
    assert "later/loss" not in sent


def test_without_the_library_the_remedy_is_named(compile_cache, tmp_path):
    """Catches: an ImportError after an hour, a run that sends nothing in silence."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without/wandb.py").write_text("raise ImportError('none')\n")
    environ = environment(compile_cache)
    environ["PYTHONPATH"] = f"{tmp_path}/without:{environ['PYTHONPATH']}"
    line = command("run", "--config=tiny", f"--workdir={tmp_path}/run", "--wandb=ours")
    done = subprocess.run(line, capture_output=True, text=True, env=environ, timeout=200, check=False)
    assert done.returncode == 2 and "pip install 'lmsi_jax[wandb]'" in " ".join(done.stderr.split())
    assert not (tmp_path / "run/questions.jsonl").exists()
