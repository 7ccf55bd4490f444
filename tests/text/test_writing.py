"""Text out: what was sampled goes through the vote, the training rows, the report and the console, and nothing is lost."""

import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from lmsi_jax.analysis.report import write_report
from lmsi_jax.analysis.rounds import REASONS
from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.reader import AnswerReader, answers_by_path
from lmsi_jax.cli import main as command_line
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.core.text import clean_text
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.recipes.config import Config
from lmsi_jax.tasks.prompts import Exemplar
from lmsi_jax.tasks.task import Task
from lmsi_jax.voting.config import SelectConfig
from tests.analysis.test_report import Page
from tests.stages.on_files import extract_file, format_file, vote_file
from tests.text import nasty

TYPES = ("number", "choice", "yes_no", "span", "text")  # expressions are compared by a process that may take seconds for one
VOTES = ("majority", "sum_probability", "average_probability", "sum_normalised", "average_normalised")
SETTINGS = {
    "seed": 0, "rounds": 1, "train_from": "base", "model": {"checkpoint": "builtin"}, "sample": {"paths": 4},
}  # fmt: skip
COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal does not show, but for line breaks and tabs
ENCODINGS = ("ascii", "latin-1", "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("text"))


def strict(text: str):
    """JSON as a browser reads it."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def rows_of(file: epath.Path) -> list[dict]:
    """The records of a file, read by JSON's own rules and by nobody else's."""
    return [strict(line.decode("utf-8")) for line in file.read_bytes().split(b"\n") if line]


@st.composite
def runs(draw):
    """Questions and paths of a run: every question has all nasty texts in every template, under ids that look alike."""
    found = draw(st.lists(nasty.texts, min_size=1, max_size=2))
    ids = draw(st.lists(nasty.texts.filter(bool), min_size=1, max_size=4, unique_by=clean_text))
    ids = list(dict.fromkeys(clean_text(id) for id in [*ids, ids[0] + " ", ids[0].swapcase() + "e\u0301", ids[0] + "\u00e9"]))
    asked = draw(st.lists(nasty.questions, min_size=len(ids), max_size=len(ids)))
    choices = draw(st.none() | st.lists(nasty.texts, min_size=2, max_size=5))
    finishes = draw(st.lists(st.sampled_from(nasty.FINISHES), min_size=1, max_size=7))
    logprobs = draw(st.lists(nasty.values, min_size=1, max_size=5))
    questions = [{"id": id, "question": text, "choices": choices} for id, text in zip(ids, asked, strict=True)]
    paths = [
        {
            "id": id, "path": 3 * i if id == ids[0] else i, "text": text, "finish": finishes[i % len(finishes)],
            "logprob": logprobs[i % len(logprobs)], "num_tokens": logprobs[-i % len(logprobs)], "more": found,
        }
        for i, text in enumerate(nasty.outputs(found)) for id in ids
    ]  # fmt: skip
    return questions, paths


def task(answer_type: str) -> Task:
    return Task("jsonl", AnswerReader(answer_type), (Exemplar("1 + 1?", "1 + 1 = 2.", "2"),))


def by_id(paths: list[dict]) -> dict[str, list[dict]]:
    return {row["id"]: sorted((r for r in paths if r["id"] == row["id"]), key=lambda r: r["path"]) for row in paths}


def sampled(folder, questions: list[dict], paths: list[dict]) -> tuple[epath.Path, ...]:
    """The files of a run: written are questions and paths, named are those to come too."""
    files = tuple(folder / f"{name}.jsonl" for name in ("questions", "paths", "votes", "examples"))
    write_jsonl(files[0], questions)
    write_jsonl(files[1], paths)
    return files


@given(runs(), st.sampled_from(TYPES), st.sampled_from((0, 50)), st.sampled_from(("first", "random", "abstain")))
@nasty.examples(30)
def test_every_path_votes_and_every_kept_one_is_trained_on(folder, run, answer_type, planned, tie):
    """Catches: a path that no vote counts, an abstention without a reason, a kept path not trained on as it was said."""
    questions, paths = run
    q, p, v, e = sampled(folder, questions, paths)
    config, about = Config(select=SelectConfig(tie=tie)), task(answer_type)
    vote_file(p, v, about, config.select, q, planned)
    stored, votes, kept = by_id(rows_of(p)), rows_of(v), []
    assert [vote["id"] for vote in votes] == list(stored) == [row["id"] for row in rows_of(q)]
    for vote in votes:
        numbers = [row["path"] for row in stored[vote["id"]]]
        assert vote["num_paths"] == len(numbers) and vote.get("paths", numbers) == numbers
        assert sum(vote["counts"].values()) + len(vote["abstained"]) == len(numbers)
        assert {path["reason"] for path in vote["abstained"]} <= REASONS.keys()
        answered = dict(zip(numbers, vote["answers"], strict=True))
        assert [path["path"] for path in vote["abstained"]] == [n for n in numbers if answered[n] is None]
        assert vote["kept"] == [n for n in numbers if answered[n] == vote["answer"] is not None]
        assert 0 <= vote["margin"] <= vote["confidence"] <= 1
        kept += [
            (vote["id"], row["path"], truncate_at_next_turn(row["text"]))
            for row in stored[vote["id"]]
            if row["path"] in vote["kept"]
        ]
    if not kept:
        with pytest.raises(UserError, match="nothing to train on"):
            format_file(config, about, Prompts.of(about), q, p, v, e)
        return
    format_file(config, about, Prompts.of(about), q, p, v, e)
    asked = {row["id"]: row["question"] for row in rows_of(q)}
    for format in config.format.formats:
        rows = [row for row in rows_of(e) if row["format"] == format]
        assert [(row["id"], row["path"]) for row in rows] == [(id, path) for id, path, _ in kept]
        assert all(f"Q: {asked[row['id']]}\n" in row["prompt"] for row in rows)
        if format.endswith("cot"):
            assert [row["target"] for row in rows] == [f" {text.strip()}" for *_, text in kept]


@given(runs(), st.sampled_from(TYPES), st.sampled_from(VOTES), st.sampled_from(("majority", "gold", "random")), nasty.texts)
@nasty.examples(30)
def test_rules_of_selection(folder, run, answer_type, rule, selection, gold):
    """Catches: a weight that is no number, a control that ends in a traceback or trains on paths without an answer."""
    questions, paths = run
    q, p, v, e = sampled(folder, questions, paths)
    config, about = Config(select=SelectConfig(rule=selection, vote=rule)), task(answer_type)
    write_jsonl(folder / "gold.jsonl", [{"id": row["id"], "answer": gold, "answers": [gold, "7"]} for row in questions])
    try:
        vote_file(p, v, about, config.select, q)
    except UserError as error:
        assert rule != "majority" and "has no finite `logprob` and `num_tokens`" in str(error)
        for row in paths:
            row.update(logprob=-(row["path"] ** 3.0), num_tokens=row["path"])
        write_jsonl(p, paths)
        vote_file(p, v, about, config.select, q)
    votes = {vote["id"]: vote for vote in rows_of(v)}
    for vote in votes.values():
        scores = vote.get("scores", vote["counts"])
        assert not scores or vote["answer"] in scores and scores[vote["answer"]] == max(scores.values())
    try:
        format_file(config, about, Prompts.of(about), q, p, v, e, folder / "gold.jsonl")
    except UserError as error:
        assert "nothing to train on" in str(error)
        return
    for row in rows_of(e):
        answered = answers_by_path(votes[row["id"]])[row["path"]]
        assert answered is not None and (selection != "gold" or about.reader.is_right(answered, [clean_text(gold), "7"]))


FIELDS = ("id", "path", "text", "finish", "logprob", "num_tokens", "answer", "answers", "kept", "confidence", "paths_hash")
odd = st.dictionaries(st.sampled_from(FIELDS), nasty.values, max_size=4)


@given(st.lists(odd, max_size=2), st.lists(odd, max_size=2), st.sampled_from(VOTES))
@nasty.examples(80)
def test_files_of_others_are_read_or_refused(folder, strange_paths, strange_votes, rule):
    """Catches: a field of another type in paths or votes that ends in a traceback, or in a path that vanishes."""
    path = {"id": "q", "path": 0, "text": "The answer is 7.", "logprob": -1.0, "num_tokens": 3}
    rows = [{**path, "path": number, **row} for number, row in enumerate(strange_paths)]
    q, p, v, e = sampled(folder, [{"id": "q", "question": "?"}], rows)
    config, about = Config(select=SelectConfig(vote=rule)), task("number")
    for use in (extract_file, vote_file):
        with contextlib.suppress(UserError):
            use(p, v, about, *([config.select] if use is vote_file else []))
            told = [row.get("num_paths", 1) for row in rows_of(v)]
            assert sum(told) == len(strange_paths)
    write_jsonl(p, [path])
    vote_file(p, v, about, config.select, q)
    (vote,) = rows_of(v)
    write_jsonl(v, [{**vote, **row} for row in strange_votes] or [vote])
    write_jsonl(folder / "gold.jsonl", [{"id": "q", "answer": "7"}])
    for selection in ("gold", "majority", "random"):
        config = Config(select=SelectConfig(rule=selection))
        with contextlib.suppress(UserError):
            format_file(config, about, Prompts.of(about), q, p, v, e, folder / "gold.jsonl")
            assert rows_of(e)


@given(runs(), st.sampled_from(TYPES), st.none() | nasty.texts, st.lists(nasty.texts, max_size=3))
@nasty.examples(12)
def test_the_report_holds_every_text(folder, run, answer_type, gold, others):
    """Catches: a page that breaks on a text, data that a browser cannot parse, a path that the page does not show."""
    questions, paths = run
    work = folder / "run"
    _, p, v, e = sampled(work / "rounds/1", questions, paths)
    write_jsonl(work / "questions.jsonl", questions)
    config = {**SETTINGS, "data": {"task": "jsonl", "answer_type": answer_type, "folder": "".join(others)}}
    (work / "config.json").write_text(json.dumps(config))
    write_jsonl(
        work / "audit/gold.jsonl", [{"id": r["id"], "answer": gold, "answers": [gold, *others]} for r in questions if gold]
    )
    about = task(answer_type)
    vote_file(p, v, about, SelectConfig())
    with contextlib.suppress(UserError):  # there may be nothing to train on
        format_file(Config(), about, Prompts.of(about), work / "questions.jsonl", p, v, e)
    html = write_report(work).read_bytes().decode("utf-8")
    (data,) = [strict(text) for about, text in Page(html).scripts if about.get("type") == "application/json"]
    shown = {question["id"]: question for question in data["questions"]}
    asked, stored = {row["id"]: row for row in rows_of(work / "questions.jsonl")}, by_id(rows_of(p))
    assert shown.keys() == stored.keys()
    for id, question in shown.items():
        assert question["question"] == asked[id]["question"] and question["choices"] == asked[id]["choices"]
        assert [(path["path"], path["text"]) for path in question["paths"]] == [(r["path"], r["text"]) for r in stored[id]]
        assert sum(count for _, count, _ in question["counts"]) == sum(p["outcome"] != "abstains" for p in question["paths"])


class Terminal(io.TextIOWrapper):
    """A stream of an encoding; `text` is what came out of it."""

    def __init__(self, encoding: str):
        super().__init__(io.BytesIO(), encoding=encoding, newline="")

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


def spelled(text: str, encoding: str, left_out: str = "\x07\x08\x0b\x0c\r") -> str:
    """How a terminal shows a text, but for the characters that Rich leaves out."""
    shown = clean_text(text).translate({ord(character): None for character in left_out})
    shown = COMMANDS.sub(lambda match: f"\\x{ord(match[0]):02x}", shown)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def visible(text: str) -> str:
    return "".join(text.split())


@given(st.lists(nasty.texts, min_size=1, max_size=8), st.sampled_from(ENCODINGS))
@nasty.examples(150)
def test_the_console_prints_every_character_and_no_command(found, encoding):
    """Catches: an escape sequence that reaches a terminal, markup that is obeyed, a terminal's encoding that ends a stage."""
    for text in found:
        for shown in (text, Text(text, style="bold")):
            said = Terminal(encoding)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "stdout", said)
                console.print(shown)
            assert not COMMANDS.search(said.text) and visible(said.text) == visible(spelled(text, encoding))


@given(st.lists(nasty.texts, min_size=1, max_size=8), st.sampled_from(ENCODINGS))
@nasty.examples(150)
def test_errors_are_shown_whole(found, encoding):
    """Catches: a message that ends in a traceback of its own, or in a command to the terminal, for the text that it quotes."""
    for text in found:
        for error in (UserError(f"Question '{text}' is wrong."), OSError(2, "No such file", text.replace("\x00", ""))):
            said = Terminal(encoding)
            with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
                patch.setattr(sys, "stderr", said)
                patch.setattr(command_line, "_dispatch", functools.partial(fail, error))
                command_line.main(["lmsi"])
            assert stop.value.code == 2 and said.text.startswith("lmsi: ") and not COMMANDS.search(said.text)
            assert isinstance(error, OSError) or visible(spelled(text, encoding, "")) in visible(said.text)


def fail(error: Exception, argv: list[str]) -> int:
    raise error


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_vote_as_a_process(folder, encoding):
    """Catches: a command that a terminal's encoding, or the text of a path, its id or its file's name, brings down."""
    paths = [
        {"id": text or "-", "path": number, "text": output}
        for text in nasty.FRAGMENTS[:40]
        for number, output in enumerate(nasty.outputs([text]))
    ]
    name = folder / f"{encoding} \u4e03\x1b[31m.jsonl"
    write_jsonl(name, paths)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [
        sys.executable,
        "-m",
        "lmsi_jax.cli.main",
        "vote",
        f"--input={name}",
        f"--output={folder}/v.jsonl",
        "--overwrite",
    ]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 2 and b"more than once" in done.stderr and b"Traceback" not in done.stderr, "ids that are one"
    assert not COMMANDS.search(done.stderr.decode(encoding))
    write_jsonl(name, by_id(paths[: len(nasty.TEMPLATES)])[paths[0]["id"]])
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (vote,) = rows_of(folder / "v.jsonl")
    assert vote["num_paths"] == len(nasty.TEMPLATES) and b"1 of 1 questions decided" in done.stdout
