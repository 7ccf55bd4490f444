"""The steps stage on files, and the votes and training rows that depend on it."""

import json
import subprocess
import sys

import pytest

from lmsi_jax.core.records import read_jsonl, write_jsonl

QUESTION = {"id": "q", "question": "Tom has 12 coins. Ann gives Tom 5 more. Then 4 are lost. How many coins does Tom have?"}
TEXTS = (
    "12 + 5 = 18. 18 - 4 = 14. The answer is 14.",  # a slip
    "12 + 5 = 18. 18 - 4 = 14. The answer is 14.",
    "12 + 5 = 17. 17 - 4 = 13. The answer is 13.",
    "12 - 4 = 8. The answer is 8.",  # a quantity is not used
    "12 - 4 = 8. The answer is 8.",
)


def lmsi(*arguments):
    command = [sys.executable, "-m", "lmsi_jax.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def checked(folder):
    files = [f"--input={folder}/paths.jsonl", f"--questions={folder}/questions.jsonl", f"--output={folder}/steps.jsonl"]
    done = lmsi("steps", *files, "--overwrite")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "questions.jsonl", [QUESTION])
    write_jsonl(tmp_path / "paths.jsonl", [{"id": "q", "path": i, "text": text} for i, text in enumerate(TEXTS)])
    done = checked(tmp_path)
    assert "5 paths; statements: right 4, wrong 2, follows error 2; paths that fail: arithmetic 40.0%" in done.stdout
    return tmp_path


def voted(folder, *flags):
    files = [f"--input={folder}/paths.jsonl", f"--questions={folder}/questions.jsonl", "--output=-"]
    done = lmsi("vote", *files, f"--steps={folder}/steps.jsonl", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_steps_are_marked_in_place(files):
    """Catches: a span that is not that of the statement, a wrong statement without its right value."""
    rows = list(read_jsonl(files / "steps.jsonl"))
    assert [(row["id"], row["path"]) for row in rows] == [("q", i) for i in range(5)]
    first = [each for step in rows[0]["steps"] for each in step["statements"]]
    assert [(TEXTS[0][each["start"] : each["end"]], each["verdict"], each.get("value")) for each in first] == [
        ("12 + 5 = 18", "wrong", "17"),
        ("18 - 4 = 14", "follows_error", None),
    ]
    assert {failure["check"] for failure in rows[3]["failures"]} == {"all_used"}


def test_paths_with_valid_steps_vote_first(files):
    """Catches: a vote that ignores the steps, or that obeys a contract which the task does not declare."""
    majority = voted(files)
    assert (majority["answer"], majority["valid"]) == ("14", [2, 3, 4]), "the steps are recorded, and do not decide"
    general = voted(files, "--config.select.vote=valid_first")
    assert (general["answer"], general["valid"], general["checks"]) == ("8", [2, 3, 4], ["arithmetic", "answer"])
    contract = "--config.data.contract=('each_once','all_used')"
    declared = voted(files, "--config.select.vote=valid_first", contract)
    assert (declared["answer"], declared["valid"], declared["kept"]) == ("13", [2], [2])
    assert declared["checks"] == ["arithmetic", "answer", "each_once", "all_used"]
    assert voted(files, "--config.select.vote=valid_first", "--task=word_problems")["answer"] == "13"
    weighted = ("--config.select.vote=valid_weighted", "--config.select.invalid_weight=0.6", contract)
    assert voted(files, *weighted)["scores"] == {"14": 1.2, "8": 1.2, "13": 1.0}


def test_without_a_valid_path_the_majority_decides(files):
    """Catches: a question that loses its vote when no path is valid."""
    write_jsonl(files / "paths.jsonl", [{"id": "q", "path": i, "text": f"The answer is {n}."} for i, n in enumerate((3, 4, 4))])
    checked(files)
    row = voted(files, "--config.select.vote=valid_first")
    assert (row["answer"], row["valid"], row["kept"]) == ("4", [], [1, 2])


def test_only_valid_paths_are_trained_on(files):
    """Catches: a filter after the vote that keeps invalid paths, or drops valid ones that agree."""
    write_jsonl(files / "votes.jsonl", [voted(files, "--config.select.steps=True")])
    arguments = [f"--{name}={files}/{name}.jsonl" for name in ("questions", "paths", "votes")]
    done = lmsi("format", *arguments, "--output=-", "--config.select.steps=True")
    assert done.returncode == 2 and "No path of 1 questions is kept" in done.stderr, "both paths with the answer 14 are wrong"
    write_jsonl(files / "votes.jsonl", [voted(files, "--config.select.vote=valid_first")])
    done = lmsi("format", *arguments, "--output=-", "--config.select.steps=True")
    assert {json.loads(line)["path"] for line in done.stdout.splitlines()} == {3, 4}


def test_what_is_missing_is_named(files):
    """Catches: a vote by steps that silently counts all paths as invalid, or takes the steps of other paths."""
    question = f"--questions={files}/questions.jsonl"
    done = lmsi("vote", f"--input={files}/paths.jsonl", question, "--output=-", "--config.select.vote=valid_first")
    assert done.returncode == 2 and "check them by `lmsi steps`" in done.stderr
    rows = list(read_jsonl(files / "steps.jsonl"))
    write_jsonl(files / "steps.jsonl", rows[:3])
    done = lmsi("vote", f"--input={files}/paths.jsonl", question, f"--steps={files}/steps.jsonl", "--output=-")
    assert done.returncode == 2 and "lacks path 3 of question 'q'" in done.stderr
    write_jsonl(files / "steps.jsonl", rows)
    write_jsonl(files / "paths.jsonl", [{"id": "q", "path": i, "text": text + " "} for i, text in enumerate(TEXTS)])
    done = lmsi("vote", f"--input={files}/paths.jsonl", question, f"--steps={files}/steps.jsonl", "--output=-")
    assert done.returncode == 2 and "lacks path 0 of question 'q'" in done.stderr, "the steps of other texts"
    done = lmsi("vote", f"--input={files}/paths.jsonl", "--output=-", "--config.select.checks=('arithmetics',)")
    assert done.returncode == 2 and "'arithmetics' is not one of 'arithmetic'" in done.stderr
