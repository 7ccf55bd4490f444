"""The loop end to end, on the built-in model: what it writes, what it reuses, what it may not read."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from lmsi_jax.checkpoint import folder
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import use_mesh
from tests.runs import ROOT, command, environment, records, run_workdir


def params(workdir):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with use_mesh(mesh):
        return folder.load_params(str(workdir / "models" / "round-1"), mesh)


def lmsi(arguments, cache, expect=0):
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(cache), timeout=280, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_records_fit_together(finished):
    """Catches: stages that disagree on ids, counts or fields."""
    workdir, _ = finished
    questions = list(read_jsonl(workdir / "questions.jsonl"))
    paths = list(read_jsonl(workdir / "rounds/1/paths.jsonl"))
    votes = {row["id"]: row for row in read_jsonl(workdir / "rounds/1/votes.jsonl")}
    examples = list(read_jsonl(workdir / "rounds/1/examples.jsonl"))
    assert not any("answer" in question for question in questions)
    assert [(row["id"], row["path"]) for row in paths] == [(q["id"], p) for q in questions for p in range(4)]
    assert set(votes) == {q["id"] for q in questions}
    for vote in votes.values():
        assert sum(vote["counts"].values()) + len(vote["abstained"]) == vote["num_paths"] == 4
        assert vote["confidence"] == vote["counts"].get(vote["answer"], 0) / 4
    assert examples and all(row["path"] in votes[row["id"]]["kept"] for row in examples)
    assert {row["format"] for row in examples} == {
        "few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct",
    }  # fmt: skip
    for prompting, m in (("standard", 1), ("cot", 1), ("self_consistency", 4)):
        scores = list(read_jsonl(workdir / f"eval/round-1/{prompting}.jsonl"))
        assert len(scores) == 4 and all(row["num_paths"] == m for row in scores)
    about = json.loads((workdir / "run.json").read_text())
    assert about["versions"]["jax"] and "--workdir" in " ".join(about["command_line"])
    assert (workdir / "report.html").stat().st_size > 1000
    assert not list((workdir / "scratch").glob("*"))


def test_fine_tuning_changed_the_model(finished):
    """Catches: a round that saves the parameters it started from."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with use_mesh(mesh):
        base = folder.load_params("builtin", mesh)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), base, params(finished[0]))
    assert min(jax.tree.leaves(moved)) > 0


def test_second_start_has_nothing_to_do(finished, compile_cache):
    """Catches: stages that run again although nothing changed."""
    before = {path: path.stat().st_mtime_ns for path in finished[0].rglob("*.jsonl")}
    assert "nothing to do" in lmsi(run_workdir(finished[0]), compile_cache)
    assert before == {path: path.stat().st_mtime_ns for path in finished[0].rglob("*.jsonl")}


def test_dry_run_says_what_and_why(finished, compile_cache, tmp_path):
    """Catches: a dry run that writes, or that does not see a changed input or setting."""
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    votes = workdir / "rounds/1/votes.jsonl"
    votes.write_text(votes.read_text() + "\n")
    said = lmsi(run_workdir(workdir, "--dry-run", "--reconfigure", **{"finetune.steps": 7}), compile_cache)
    assert "rounds/1/sample: done, reused" in said
    assert "rounds/1/format: would run: inputs changed: rounds/1/votes.jsonl" in said
    assert "rounds/1/finetune: would run: inputs will be rebuilt: rounds/1/examples.jsonl" in said
    assert "eval/base/evaluate: done, reused" in said
    assert "eval/round-1/evaluate: would run: inputs will be rebuilt: models/round-1" in said
    assert json.loads((workdir / "config.json").read_text())["finetune"]["steps"] == 6


def test_only_and_from(finished, compile_cache, tmp_path):
    """Catches: --only that runs more, --from that runs less."""
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    said = lmsi(run_workdir(workdir, "--only=vote", "--from=vote"), compile_cache)
    assert "rounds/1/vote: done in" in said and "format" not in said
    more = run_workdir(workdir, "--only=vote", "--reconfigure", **{"sample.paths": 5})
    assert "Stage rounds/1/vote: inputs will be rebuilt: rounds/1/paths.jsonl" in lmsi(more, compile_cache, expect=2)
    lmsi(run_workdir(workdir, "--only=vote", "--reconfigure"), compile_cache)
    said = lmsi(run_workdir(workdir, "--from=report"), compile_cache)
    assert "report: done in" in said and "finetune: done in" not in said
    assert records(workdir) == records(finished[0])


def test_settings_that_change_nothing_remake_nothing(finished, compile_cache, tmp_path):
    """Catches: hours of decoding thrown away because a run is batched, logged or evaluated otherwise."""
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    other = {"sample.lanes": 4, "sample.sync_every": 5, "finetune.save_every": 3, "sample.temperature_after": 0.9}
    said = lmsi(run_workdir(workdir, "--dry-run", "--reconfigure", **other), compile_cache)
    for stage in ("rounds/1/sample", "rounds/1/vote", "rounds/1/format", "rounds/1/finetune", "eval/base/evaluate"):
        assert f"{stage}: done, reused" in said
    assert "eval/round-1/evaluate: would run: settings changed: decoding.sampling.temperature" in said


def test_changed_exemplars_are_seen(finished, compile_cache, tmp_path):
    """Catches: paths of two prompts in one file."""
    file = tmp_path / "exemplars.jsonl"
    rows = list(read_jsonl(ROOT / "lmsi_jax/tasks/exemplars/word_problems.jsonl"))
    write_jsonl(file, rows)
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    said = lmsi(run_workdir(workdir, "--dry-run", "--reconfigure", **{"data.exemplars": file}), compile_cache)
    assert "rounds/1/sample: done, reused" in said
    write_jsonl(file, rows[:1])
    said = lmsi(run_workdir(workdir, "--dry-run", "--reconfigure", **{"data.exemplars": file}), compile_cache)
    assert "prepare: would run: settings changed: exemplars" in said, "they may be held-out questions"
    assert "rounds/1/sample: would run: " in said


@pytest.mark.slow
def test_gold_answers_are_never_read(finished, compile_cache, tmp_path):
    """Catches: any use of the answer column by the loop: records and parameters are the same without it."""
    rows = list(read_jsonl(finished[0] / "questions.jsonl"))
    right = [row["answer"] for row in read_jsonl(finished[0] / "audit/gold.jsonl")]
    columns = {
        "with_gold": [{"answer": answer} for answer in right],
        "removed": [{}] * len(rows),
        "scrambled": [{"answer": str(7 * i)} for i in range(len(rows))],
    }
    cheap = {"evaluate.self_consistency": False}
    source = {"data.task": "jsonl", "data.exemplars": ROOT / "lmsi_jax/tasks/exemplars/word_problems.jsonl"}
    source |= {"data.num_questions": 0, "data.num_eval": 0}
    for name, answers in columns.items():
        file = tmp_path / f"{name}.jsonl"
        write_jsonl(file, ({**row, **answer} for row, answer in zip(rows, answers, strict=True)))
        lmsi(run_workdir(tmp_path / name, **{**source, **cheap, "data.questions": file}), compile_cache)
    for name in ("removed", "scrambled"):
        assert records(tmp_path / "with_gold") == records(tmp_path / name)
        trained = (jax.tree.leaves(params(tmp_path / run)) for run in ("with_gold", name))
        for a, b in zip(*trained, strict=True):
            np.testing.assert_array_equal(a, b)


def test_vote_runs_where_jax_is_not(finished, tmp_path):
    """Catches: an import that makes voting on somebody's paths need an accelerator runtime."""
    code = (
        "import sys; sys.modules.update(jax=None, flax=None); from lmsi_jax.cli.main import main; "
        f"main(['lmsi', 'vote', '--input={finished[0]}/rounds/1/paths.jsonl', '--output={tmp_path}/votes.jsonl'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "votes.jsonl").read_bytes() == (finished[0] / "rounds/1/votes.jsonl").read_bytes()


def test_a_path_votes_once(finished, compile_cache, tmp_path):
    """Catches: doubled rows, as of two files joined, that count twice."""
    text = (finished[0] / "rounds/1/paths.jsonl").read_text()
    (tmp_path / "p.jsonl").write_text(text + text.splitlines()[5] + "\n")
    said = lmsi(command("vote", f"--input={tmp_path}/p.jsonl", f"--output={tmp_path}/v.jsonl"), compile_cache, expect=2)
    assert "question 'train-00001' has path 1 more than once" in said
    assert not (tmp_path / "v.jsonl").exists()


def test_stages_alone_on_files(finished, compile_cache, tmp_path):
    """Catches: a stage that works inside a run only."""
    run = finished[0]
    config = f"--config={ROOT}/configs/tiny.py"
    lmsi(command("vote", f"--input={run}/rounds/1/paths.jsonl", f"--output={tmp_path}/votes.jsonl"), compile_cache)
    assert (tmp_path / "votes.jsonl").read_bytes() == (run / "rounds/1/votes.jsonl").read_bytes()
    files = [f"--questions={run}/questions.jsonl", f"--paths={run}/rounds/1/paths.jsonl", f"--votes={tmp_path}/votes.jsonl"]
    lmsi(command("format", config, *files, f"--output={tmp_path}/examples.jsonl"), compile_cache)
    assert (tmp_path / "examples.jsonl").read_bytes() == (run / "rounds/1/examples.jsonl").read_bytes()
    from tests.runs import SMALL

    lmsi(
        command("sample", config, f"--questions={run}/questions.jsonl", f"--output={tmp_path}/p.jsonl", **SMALL), compile_cache
    )
    assert (tmp_path / "p.jsonl").read_bytes() == (run / "rounds/1/paths.jsonl").read_bytes()
    lmsi(
        command("finetune", config, f"--examples={tmp_path}/examples.jsonl", f"--output={tmp_path}/model", **SMALL),
        compile_cache,
    )
    lmsi(
        command(
            "evaluate", config, f"--questions={run}/held_out.jsonl", f"--output={tmp_path}/eval",
            **{**SMALL, "model.checkpoint": tmp_path / "model"},
        ),
        compile_cache,
    )  # fmt: skip
    assert len(list(read_jsonl(tmp_path / "eval/cot.jsonl"))) == 4
    before = (run / "report.html").read_bytes()
    lmsi(command("report", f"--workdir={run}"), compile_cache)
    assert len((run / "report.html").read_bytes()) == pytest.approx(len(before), rel=0.01)
    assert {p.name for p in tmp_path.iterdir()} >= {"votes.jsonl", "examples.jsonl", "p.jsonl", "model", "eval"}
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert list((tmp_path / "p-metrics").glob("*.jsonl")), "of its own: another output beside it keeps its metrics"
    assert json.loads((tmp_path / "model/finetuned.json").read_text()) == {"base": "builtin"}
    assert {row["temperature"] for row in read_jsonl(tmp_path / "eval/self_consistency.jsonl")} == {
        row["temperature"] for row in read_jsonl(run / "eval/round-1/self_consistency.jsonl")
    }, "a fine-tuned model is sampled as `lmsi run` samples it"


def test_nothing_kept_says_why(finished, compile_cache, tmp_path):
    """Catches: training on nothing, or a run that ends without a word on the wrong answer type."""
    paths = finished[0] / "rounds/1/paths.jsonl"
    files = [f"--input={paths}", f"--output={tmp_path}/votes.jsonl"]
    lmsi(command("vote", *files, **{"data.answer_type": "yes_no"}), compile_cache)
    files = [f"--questions={finished[0]}/questions.jsonl", f"--paths={paths}", f"--votes={tmp_path}/votes.jsonl"]
    config = {"data.answer_type": "yes_no", "data.exemplars": ROOT / "lmsi_jax/tasks/exemplars/yes_no.jsonl"}
    arguments = command("format", *files, f"--output={tmp_path}/examples.jsonl", **config)
    said = lmsi(arguments, compile_cache, expect=2)
    assert "No path of 6 questions is kept" in said and "no_yes_no: " in said
    assert not (tmp_path / "examples.jsonl").exists()
