"""Distillation as a user runs it: a student of another size and with another tokenizer, with and without a checkpoint."""

import json
import subprocess
import sys

import pytest

from lmsi_jax.core.records import read_jsonl
from tests.runs import ROOT, SMALL, environment

BASE = {
    "base.model.vocab": 400, "base.model.width": 32, "base.model.layers": 2, "base.model.mlp": 64, "base.model.head_width": 8,
    "base.corpus.documents": 200, "base.tokenizer_documents": 200, "base.held_out_documents": 20, "base.train.steps": 8,
    "base.train.warmup": 2, "base.train.batch": 8, "base.validate_every": 4, "finetune.row_length": 320,
}  # fmt: skip


def lmsi(cache, name, workdir, *flags, **config):
    arguments = [f"--config.{key}={value}" for key, value in config.items() if not key.startswith("rounds")]
    done = subprocess.run(
        [sys.executable, "-m", "lmsi_jax.cli.main", name, f"--config={ROOT}/configs/tiny_distill.py", f"--workdir={workdir}",
         "--store=none", *flags, *arguments],
        capture_output=True, text=True, env=environment(cache), timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_student_from_nothing_and_then_from_its_checkpoint(compile_cache, tmp_path):
    """Catches: a student that is given the teacher's tokenizer, architecture or prompts; names that are round numbers."""
    run = tmp_path / "run"
    printed = lmsi(compile_cache, "distill", run, **{**SMALL, **BASE})
    models = {path.name: json.loads((path / "config.json").read_text())["width"] for path in (run / "models").iterdir()}
    assert models == {"student": 32, "distilled": 32}
    student, distilled = (run / "models" / name / "tokenizer.model" for name in ("student", "distilled"))
    assert student.read_bytes() == distilled.read_bytes() and student.stat().st_size < 300_000
    scored = {path.name: list(read_jsonl(path / "cot.jsonl")) for path in (run / "eval").iterdir()}
    assert scored.keys() == {"student", "teacher", "distilled"}
    assert {(row["model"], row["checkpoint"]) for rows in scored.values() for row in rows} == {(name, name) for name in scored}
    assert {row["temperature"] for row in read_jsonl(run / "eval/distilled/self_consistency.jsonl")} == {1.0}
    losses = [row for row in read_jsonl(run / "metrics/train.jsonl") if "validation_loss" in row]
    assert [row["step"] for row in losses] == [4, 8] and losses[0]["validation_loss"] > losses[1]["validation_loss"]
    assert "against the first model" in printed and (run / "report.html").stat().st_size > 1000

    other = {**SMALL, **BASE, "student.checkpoint": run / "models/student"}
    predicted = lmsi(compile_cache, "distill", tmp_path / "other", "--dry-run", **other)
    assert "\ntrain:" not in predicted and "teacher/finetune: would run" in predicted
    lmsi(compile_cache, "distill", tmp_path / "other", **other)
    for name in ("teacher/paths.jsonl", "teacher/votes.jsonl", "teacher/examples.jsonl", "eval/distilled/cot.jsonl"):
        assert (tmp_path / "other" / name).read_bytes() == (run / name).read_bytes(), "the same student, the same bytes"
