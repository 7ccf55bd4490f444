"""`lmsi ask`: one question, its vote, and what such a vote was worth before."""

import json
import os
import pty
import subprocess

import pytest
from etils import epath

from lmsi_jax.cli.ask import held_out_votes, meaning
from lmsi_jax.core.records import write_jsonl
from tests.runs import command, environment

QUESTION = "Tom has 31 pens and Ann has 24 pens. How many pens do they have in all?"
FEW = {"mesh.cpu_devices": 1, "sample.max_tokens": 48}


def ask(cache, *words, stdin="", **settings):
    return subprocess.run(
        command("ask", *words, **FEW | settings), capture_output=True, text=True, input=stdin, env=environment(cache),
        timeout=200, check=False,
    )  # fmt: skip


def test_a_question_and_its_vote(compile_cache):
    """Catches: an answer that is not the vote of the paths, a record with anything else on standard output."""
    done = ask(compile_cache, QUESTION, "--paths=8", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    record = json.loads(line)
    answers = [path["answer"] for path in record["paths"]]
    assert len(answers) == 8 and record["confidence"] == answers.count(record["answer"]) / 8
    assert record["path"] == record["paths"][answers.index(record["answer"])]["text"]
    assert record["right"]["n"] > 100 and record["right"]["from"] < record["confidence"] <= record["right"]["to"]


def test_questions_by_line(compile_cache):
    """Catches: a loop that ends with the first question that cannot be asked, or refuses one that is somewhat longer than the
    last; a blank line that is asked."""
    longer = [f"{'Ann has 24 pens. ' * count}How many pens is that?" for count in (14, 15)]  # of 110 and 117 tokens
    lines = f"{QUESTION}\n\nHow much is 2 and 2?<unk>\n{QUESTION}\n" + "\n".join(longer) + "\n"
    done = ask(compile_cache, "--paths=4", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of 4 paths agree") + done.stdout.count("None of the 4 paths") >= 4, done.stdout
    assert "the engine's limit" not in done.stdout
    alone = ask(compile_cache, QUESTION, "--paths=4")
    assert alone.stdout.strip() and alone.stdout.strip() in done.stdout.replace("question> ", "")


def test_on_a_terminal_votes_come_while_paths_are_sampled(compile_cache):
    """Catches: a terminal that shows nothing until the end."""
    ours, theirs = pty.openpty()
    environ = {**environment(compile_cache), "TERM": "xterm", "COLUMNS": "100"}
    started = subprocess.Popen(
        command("ask", QUESTION, "--paths=16", "--config.sample.sync_every=2", **FEW), stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 4096)
        except OSError:  # the process has ended
            break
    assert started.wait(200) == 0
    assert "of 16 paths\x1b" in (text := written.decode()) or text.count("of 16 paths") > 2, text
    assert "16 of 16 paths" in text and "paths agree" in text


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("What", "now?"), "'What now?' are 2 arguments; put the question between quotes"),
        (("x", "--model=nowhere"), "nowhere is not a checkpoint folder"),
        (("x", "--config.sample.engine=openai", "--config.sample.endpoint.model=m"), "samples on this machine"),
        (("x", "--paths=many"), "paths"),
        (("x " * 3000,), "context"),
    ],
)
def test_what_cannot_be_asked(words, problem, compile_cache):
    """Catches: a traceback, or an answer to half of the question."""
    done = ask(compile_cache, *words)
    assert done.returncode == 2 and problem in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_what_a_vote_share_has_meant(tmp_path):
    """Catches: votes of another model, a share at the edge of a range, a range without questions."""
    folder = epath.Path(tmp_path)
    rows = [{"confidence": share, "correct": right} for share, right in ((0.2, False), (0.5, True), (0.5, False), (0.51, True))]
    for name, of in (("round-1", rows), ("base", rows[:1])):
        (folder / "eval" / name).mkdir(parents=True)
        write_jsonl(folder / "eval" / name / "self_consistency.jsonl", of)
    scored = held_out_votes(folder / "models/round-1")
    assert len(scored) == 4 and held_out_votes(folder / "models/round-2") == []
    assert meaning(scored, 0.5)["n"] == 2 and meaning(scored, 0.5)["share"] == 0.5
    assert meaning(scored, 0.75)["share"] == 1 and meaning(scored, 0.0)["n"] == 1 and meaning(scored, 1.0) is None
    assert meaning([{"confidence": 0.9, "correct": 0.75, "count": 40}], 0.8)["n"] == 40
