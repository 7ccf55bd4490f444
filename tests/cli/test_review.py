"""`lmsi reviews` and the errors of `lmsi review`, as a user meets them."""

import json
import socket

import pytest

from lmsi_jax.cli.main import main
from lmsi_jax.core.records import read_jsonl
from tests.review.run import GROUP, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), questions=12)


def lmsi(capsys, *args):
    with pytest.raises(SystemExit) as end:
        main(["lmsi", *map(str, args)])
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


def test_reviews_of_another_tool_are_read_and_summarised(folder, tmp_path, capsys):
    """Catches: rows that are doubled by a second import, a summary of nothing, an export that replaces a file."""
    work = f"--workdir={folder.root}"
    status, out, _ = lmsi(capsys, "reviews", work)
    assert status == 0 and "no review of the labels of rounds/1" in out
    status, out, _ = lmsi(capsys, "reviews", work, "--tool=prodigy", f"--output={tmp_path}/tasks.jsonl")
    assert status == 0
    tasks = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    assert len(tasks) == 12 and all("gold" not in json.dumps(task) for task in tasks)
    done = [{**task, "answer": "reject" if n == 0 else "accept", "_annotator_id": "ann"} for n, task in enumerate(tasks[:10])]
    (tmp_path / "done.jsonl").write_text("\n".join(map(json.dumps, done)))
    for new in (10, 0):
        status, out, _ = lmsi(capsys, "reviews", work, "--tool=prodigy", f"--input={tmp_path}/done.jsonl")
        assert status == 0 and f"reviews: {new} new rows" in out
    words = " ".join(out.split())
    assert "ann 10; 0 unclear" in words and "from 10 reviewed" in words
    assert len(list(read_jsonl(folder.reviews(GROUP)))) == 10
    status, _, err = lmsi(capsys, "reviews", work, "--tool=prodigy", f"--output={tmp_path}/tasks.jsonl")
    assert status == 2 and "exists; nothing was overwritten" in err


def test_what_cannot_be_reviewed_is_named(folder, tmp_path, capsys):
    """Catches: a server that starts for a run without votes, for one reviewer twice, or on a port that is taken."""
    status, _, err = lmsi(capsys, "review", f"--workdir={tmp_path}")
    assert status == 2 and "has no votes to review" in err
    work = f"--workdir={folder.root}"
    for flags, words in (
        (["--group=rounds/7"], "--group=rounds/7 has no votes"), (["--reviewers=ann,ann"], "must name each reviewer once"),
        (["--above=0.7"], "--above=0.7 must be one of 0, 0.25, 0.5"),
    ):  # fmt: skip
        status, _, err = lmsi(capsys, "review", work, *flags)
        assert status == 2 and words in err, err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, _, err = lmsi(capsys, "review", work, f"--port={taken.getsockname()[1]}")
        assert status == 2 and "choose another one with --port" in err
    for flags, words in (
        (["--tool=prodigy"], "--tool goes with --input"), (["--input=x"], "--tool goes with --input"),
        (["--tool=excel", "--input=setup.py"], "no tool 'excel'"), (["--tool=inspect", "--input=nothing"], "nothing"),
        (["--tool=argilla", "--input=setup.py"], "neither a JSON list nor JSON Lines"),
    ):  # fmt: skip
        status, _, err = lmsi(capsys, "reviews", work, *flags)
        assert status == 2 and words in err, err
