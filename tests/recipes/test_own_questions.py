"""A run that has two questions and nothing else: the model writes the others, and the exemplars of its prompts."""

import re
import subprocess

import pytest

from lmsi_jax.core.records import read_jsonl
from tests.runs import environment, run_workdir

OWN = {
    "data.source": "self", "data.exemplars": "self", "data.num_questions": 2, "data.num_eval": 2, "data.templates": 2,
    "data.shots": 1, "propose.proposals": 6, "propose.passes": 2, "propose.shown": 2, "propose.max_tokens": 64,
    "evaluate.self_consistency": False,
}  # fmt: skip


@pytest.mark.slow
def test_a_run_on_questions_and_exemplars_of_its_own(compile_cache, tmp_path):
    """Catches: a stage that reads the given questions in place of the written ones, or human exemplars."""
    done = subprocess.run(
        run_workdir(tmp_path / "run", **OWN), capture_output=True, text=True, env=environment(compile_cache), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    read = lambda name: list(read_jsonl(tmp_path / "run" / name))  # noqa: E731
    questions, proposals = read("questions.jsonl"), read("proposals.jsonl")
    assert len(proposals) == 12 and {row["pass"] for row in proposals} == {1, 2}
    assert all(row["id"].startswith("proposal-") for row in questions) and len(questions) >= 4
    assert {row["id"] for row in read("rounds/1/paths.jsonl")} == {row["id"] for row in questions}
    shown = {row["template"]: row["question"] for row in read("exemplars.jsonl")}
    assert set(shown.values()) <= {row["question"] for row in questions} and len(shown) == 2
    rows = [row for row in read("rounds/1/examples.jsonl") if row["format"].startswith("few")]
    assert {row["template"] for row in rows} == {0, 1}
    assert all(row["prompt"].startswith(f"Q: {shown[row['template']]}\n") for row in rows)
    assert "Questions that the model wrote" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"data.exemplars": "none"}, "has no exemplars for the training rows in the format.s. few_shot_cot, few_shot_direct"),
        ({"data.exemplars": "self", "data.templates": 2, "sample.adaptive.rule": "beta"}, "so that no vote can stop them"),
        ({"data.exemplars": "self", "data.templates": 2, "faithfulness": 4}, "run lmsi faithfulness with"),
        ({"data.exemplars": "self", "data.templates": 9}, "data.templates=9 is more than sample.paths=4"),
        ({"data.source": "self", "data.num_questions": 1}, "at least two questions, or from a description of the task, and 1"),
        ({"data.source": "self", "propose.shown": 0}, "propose.shown=0 must be at least 1"),
        ({"data.source": "self", "propose.similarity": 1.5}, "propose.similarity=1.5 is not within"),
        ({"data.source": "self", "propose.shown": 200}, "The prompt for a proposal does not fit the model: 200 questions"),
        ({"data.source": "self", "propose.max_tokens": 300}, "finetune.row_length=256.*or --config.propose.max_tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, problem, compile_cache, tmp_path):
    """Catches: a silent zero-shot run, an early stop that cannot work, an error after the first hour."""
    arguments = run_workdir(tmp_path / "run", **settings)
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(compile_cache), check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(problem, " ".join(done.stderr.split())), done.stderr
    assert "Traceback" not in done.stderr
