"""Other prompts, other tasks and texts in a run of the command line."""

import subprocess

import pytest

from lmsi_jax.core.files import read_json
from lmsi_jax.core.records import read_jsonl
from tests.runs import environment, run_workdir

MEASURED = {
    "evaluate.transfer": 2, "evaluate.other_tasks": "('longer_word_problems','other_word_problems')",
    "evaluate.texts": "builtin", "evaluate.self_consistency": False,
}  # fmt: skip


def lmsi(cache, workdir, **settings):
    arguments = run_workdir(workdir, **settings)
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(cache), check=False)


@pytest.mark.slow
def test_a_run_measures_its_first_and_last_model(compile_cache, tmp_path):
    """Catches: prompts that are answered by the wrong model or read by the wrong task, and a report that leaves them out."""
    done = lmsi(compile_cache, tmp_path / "run", **MEASURED)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {name: list(read_jsonl(tmp_path / f"run/transfer/{name}.jsonl")) for name in ("base", "round-1")}
    names = list(dict.fromkeys((row["kind"], row["name"]) for row in rows["base"]))
    assert names[0] == ("prompt", "given") and len(names) == 11
    assert names[-2:] == [("task", "longer_word_problems"), ("task", "other_word_problems")]
    for name, of_model in rows.items():
        assert len(of_model) == 22 and {row["model"] for row in of_model} == {name}
        assert [(row["kind"], row["name"]) for row in of_model[::2]] == names
    held_out = {row["id"]: row for row in read_jsonl(tmp_path / "run/eval/base/cot.jsonl")}
    for row in rows["base"][:2]:  # the given prompt, in full: what the evaluation asks behind a prefix
        assert row["answers"] == held_out[row["id"]]["answers"]
    losses = [list(read_jsonl(tmp_path / f"run/transfer/{name}-texts.jsonl")) for name in rows]
    assert [row["tokens"] for row in losses[0]] == [row["tokens"] for row in losses[1]]
    mean = sum(row["loss"] for row in losses[0]) / sum(row["tokens"] for row in losses[0])
    assert 0.55 < mean < 0.7, "the validation loss of the built-in model"
    page = (tmp_path / "run/report.html").read_text()
    for title in ("Dependence on the prompt", "Generalisation to other tasks", "Forgetting", "Cost"):
        assert f"<h3>{title}</h3>" in page
    work = {name: read_json(tmp_path / f"run/manifests/rounds-1-{name}.json")["work"] for name in ("sample", "finetune")}
    sampled = sum(row["num_tokens"] for row in read_jsonl(tmp_path / "run/rounds/1/paths.jsonl"))
    assert work["sample"]["tokens"] == sampled and work["finetune"]["tokens"] == 6 * 4 * 256
    assert 2e6 < work["sample"]["operations"] / sampled < 1e7, "about two operations a parameter and token"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"evaluate.other_tasks": "('sums',)", "evaluate.transfer": 2}, "evaluate.other_tasks"),
        ({"evaluate.other_tasks": "('gsm8k',)", "evaluate.transfer": 2}, "'gsm8k' has no held-out questions with data.source"),
        ({"evaluate.texts": "none.jsonl"}, "none.jsonl does not exist"),
        ({"evaluate.texts": __file__}, "line 1: not valid JSON"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings, problem, compile_cache, tmp_path):
    """Catches: a misspelt task or file that is noticed after training."""
    done = lmsi(compile_cache, tmp_path / "run", **settings)
    assert done.returncode == 2 and problem in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run/eval").exists()
