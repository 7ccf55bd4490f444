"""Extraction and voting on files alone, of any engine, and in a pipe."""

import json
import os
import subprocess
import sys

import pytest
from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.recipes.config import Config
from lmsi_jax.stages.external_samples import convert_file
from lmsi_jax.tasks.task import Task
from lmsi_jax.voting.config import SelectConfig
from tests.stages.on_files import format_file, vote_file

TASK = Task("jsonl", AnswerReader("number"), ())

ROWS = [
    {"id": "a", "path": 0, "text": " 3 + 4 = 7. The answer is 7.", "mine": [1]},
    {"id": "a", "path": 1, "text": " The answer is unclear."},
    {"id": "a", "path": 2, "text": " So it is $7.00.\n#### 7"},
    {"id": "b", "path": 0, "text": ""},
]


def lmsi(*args: str, stdin: str = "") -> subprocess.CompletedProcess:
    """`lmsi ARGS` where there is no JAX."""
    code = (
        "import sys; sys.modules.update(jax=None, flax=None); from lmsi_jax.cli.main import main; main(['lmsi', *sys.argv[1:]])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *args], input=stdin, capture_output=True, text=True, check=False, env=os.environ
    )


def test_every_row_comes_back_with_its_answer(tmp_path):
    """Catches: rows dropped for want of an answer, fields of others that are lost."""
    write_jsonl(tmp_path / "p.jsonl", ROWS)
    done = lmsi("extract", f"--input={tmp_path}/p.jsonl", f"--output={tmp_path}/a.jsonl", "--answer_type=number")
    assert done.returncode == 0, done.stderr
    rows = list(read_jsonl(tmp_path / "a.jsonl"))
    assert [(row["answer"], row["reason"]) for row in rows] == [("7", None), (None, "no_number"), ("7", None), (None, "empty")]
    assert [{k: row[k] for k in old} for row, old in zip(rows, ROWS, strict=True)] == ROWS
    assert "2 of 4 paths have an answer; without one: no_number: 1, empty: 1" in done.stdout


def test_a_pipe(tmp_path):
    """Catches: progress or summaries among the records."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    extracted = lmsi("extract", "--input=-", "--output=-", "--answer_type=number", stdin=text)
    voted = lmsi("vote", "--input=-", "--output=-", "--answer_type=number", stdin=extracted.stdout)
    votes = [json.loads(line) for line in voted.stdout.splitlines()]
    assert [(v["id"], v["answer"], v["confidence"], v["kept"]) for v in votes] == [
        ("a", "7", pytest.approx(2 / 3), [0, 2]),
        ("b", None, 0.0, []),
    ]
    assert "1 of 2 questions decided" in voted.stderr
    broken = lmsi("vote", "--input=-", "--output=-", stdin=text + "{\n")
    assert broken.returncode == 2 and "standard input line 5: not valid JSON" in broken.stderr


def test_samples_of_other_engines(tmp_path):
    """Catches: samples of one question that get one number, or a cut sample that looks finished."""
    message = {"index": 0, "message": {"content": "The answer is 7."}, "finish_reason": "stop"}
    cut = {"index": 1, "text": "3 + 4", "finish_reason": "length"}
    batch = {"custom_id": "q1", "response": {"status_code": 200, "body": {"choices": [message, cut]}}, "error": None}
    harness = {"doc_id": 4, "doc": {}, "resps": [["The answer is 7.", "The answer is 8."]], "filter": "strict"}
    write_jsonl(tmp_path / "in.jsonl", [batch, harness, {**harness, "filter": "flexible"}, harness])
    convert_file(epath.Path(tmp_path / "in.jsonl"), epath.Path(tmp_path / "out.jsonl"))
    assert [(r["id"], r["path"], r["text"], r["finish"]) for r in read_jsonl(tmp_path / "out.jsonl")] == [
        ("q1", 0, "The answer is 7.", "stop"),
        ("q1", 1, "3 + 4", "length"),
        *(("4", n, f"The answer is {7 + n % 2}.", "stop") for n in range(4)),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"custom_id": "q", "response": {"status_code": 500}, "error": None}, "request 'q' failed"),
        ({"custom_id": "q", "response": {"body": None}}, "the answer to request 'q' has no `choices`"),
        ({"doc_id": 1, "resps": [[[-1.5, False]]]}, "not generated text"),
        ({"prompt": "?", "output": "7"}, "row 1: neither an OpenAI batch answer"),
    ],
)
def test_samples_that_cannot_be_read(row, said, tmp_path):
    """Catches: failed requests that become empty paths, a format that is guessed."""
    write_jsonl(tmp_path / "in.jsonl", [row])
    with pytest.raises(UserError, match=said):
        convert_file(epath.Path(tmp_path / "in.jsonl"), epath.Path(tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_letter_that_no_option_has_is_no_vote(tmp_path):
    """Catches: a vote for an option that the question does not have, which would be trained on."""
    rows = [{"id": "q", "path": i, "text": f"The answer is ({letter})."} for i, letter in enumerate("HHA")]
    write_jsonl(tmp_path / "p.jsonl", rows)
    write_jsonl(tmp_path / "q.jsonl", [{"id": "q", "question": "?", "choices": ["ice", "sand"]}])
    files = [f"--input={tmp_path}/p.jsonl", "--output=-", "--answer_type=choice"]
    assert json.loads(lmsi("vote", *files).stdout)["answer"] == "H"
    known = json.loads(lmsi("vote", *files, f"--questions={tmp_path}/q.jsonl").stdout)
    assert (known["answer"], known["kept"], known["abstained"][0]["reason"]) == ("A", [2], "no_choice")


@pytest.mark.parametrize(
    ("rule", "answer"),
    [("majority", "7"), ("sum_probability", "8"), ("sum_normalised", "7"), ("average_normalised", "8")],
)
def test_votes_by_probability(tmp_path, rule, answer):
    """Catches: a rule of self-consistency that is not the one asked for."""
    paths = [("7", -30.0, 30), ("7", -31.0, 30), ("8", -25.0, 50)]
    rows = [
        {"id": "q", "path": i, "text": f"The answer is {said}.", "logprob": total, "num_tokens": count}
        for i, (said, total, count) in enumerate(paths)
    ]
    write_jsonl(tmp_path / "p.jsonl", rows)
    files = [f"--input={tmp_path}/p.jsonl", "--output=-", "--task=gsm8k", f"--config.select.vote={rule}"]
    assert json.loads(lmsi("vote", *files).stdout)["answer"] == answer
    write_jsonl(tmp_path / "p.jsonl", [{**row, "logprob": None} for row in rows])
    done = lmsi("vote", *files)
    assert (done.returncode == 0) == (rule == "majority")
    assert rule == "majority" or "has no finite `logprob` and `num_tokens`" in done.stderr


PATH = {"id": "q", "path": 0, "text": "The answer is 7.", "logprob": -1.0, "num_tokens": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprob": 10**400}, "has no finite `logprob` and `num_tokens`"),
        ({"logprob": True}, "has no finite `logprob` and `num_tokens`"),
        ({"num_tokens": 10**400}, "has no finite `logprob` and `num_tokens`"),
        ({"path": True}, "a path needs `path` .int."),
        ({"finish": 3}, "`finish` of a path is 3; it must be"),
    ],
)
def test_paths_that_cannot_vote(change, message, tmp_path):
    """Catches: an OverflowError for a weight, a truth value that numbers a path, a reason to finish that is silently none."""
    write_jsonl(tmp_path / "p.jsonl", [{**PATH, **change}])
    with pytest.raises(UserError, match=message):
        vote_file(epath.Path(tmp_path / "p.jsonl"), epath.Path(tmp_path / "v.jsonl"), TASK, SelectConfig(vote="sum_normalised"))
    assert not (tmp_path / "v.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "has the `id` None"),
        ({"kept": None}, "has the `kept` None"),
        ({"kept": [5]}, "was made from other paths than these"),
        ({"answers": []}, "was made from other paths than these"),
        ({"answers": [7]}, "has the `answers` .7."),
        ({"confidence": "1"}, "has the `confidence` '1'"),
        ({"abstained": [1]}, "has the `abstained` .1."),
        ({}, "question 'q' has more than one vote"),
    ],
)
def test_votes_that_cannot_be_used(change, message, tmp_path):
    """Catches: a KeyError for votes of another program or of a careless hand, a second vote that replaces the first."""
    files = [epath.Path(tmp_path / f"{name}.jsonl") for name in "qpve"]
    write_jsonl(files[0], [{"id": "q", "question": "?"}])
    write_jsonl(files[1], [PATH])
    vote_file(files[1], files[2], TASK, SelectConfig())
    (vote,) = read_jsonl(files[2])
    write_jsonl(files[2], [{**vote, **change}] if change else [vote, vote])
    with pytest.raises(UserError, match=message):
        format_file(Config(), TASK, Prompts("", ""), *files)
    assert not files[3].exists()
