"""One truth for what a path answers and whether that is right: votes, training rows, controls, report, scores and stopping."""

import dataclasses
import json
from pathlib import Path

import pytest
from etils import epath

from lmsi_jax.analysis.browser import round_payload
from lmsi_jax.analysis.plan import read_plan
from lmsi_jax.analysis.rounds import label_precision, read_gold, read_rounds
from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.decoding.config import SampleConfig
from lmsi_jax.decoding.scheduler import SampledPath
from lmsi_jax.evaluation.scores import score
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import Parts
from lmsi_jax.stages import sample
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.tasks.task import Task, load_task
from lmsi_jax.voting.adaptive import expected_margin, expected_share
from lmsi_jax.voting.config import AdaptiveConfig, SelectConfig
from tests.stages.on_files import format_file, vote_file

CASES = Path(__file__).parents[1] / "answers" / "cases" / "outputs.jsonl"
TYPES = ("number", "choice", "yes_no", "span", "math", "text")


def path(id, number, text, finish="stop"):
    return {"id": id, "path": number, "text": text, "finish": finish, "num_tokens": 5, "logprob": -1.0, "prompt_hash": "0"}


def make_round(folder, task, questions, paths, rule="majority"):
    """A work directory whose round 1 was voted and formatted from these paths; returns its votes."""
    folder = epath.Path(folder)
    write_jsonl(folder / "questions.jsonl", ({k: v for k, v in q.items() if not k.startswith("answer")} for q in questions))
    write_jsonl(folder / "audit" / "gold.jsonl", questions)
    files = [folder / "rounds" / "1" / f"{name}.jsonl" for name in ("paths", "votes", "examples")]
    write_jsonl(files[0], paths)
    vote_file(files[0], files[1], task, SelectConfig(), folder / "questions.jsonl")
    config = Config(select=SelectConfig(rule=rule))
    format_file(config, task, Prompts.of(task), folder / "questions.jsonl", *files, folder / "audit" / "gold.jsonl")
    return list(read_jsonl(files[1]))


@pytest.mark.parametrize("answer_type", TYPES)
def test_all_judge_the_paths_of_the_fixtures_alike(answer_type, tmp_path):
    """Catches: label precision, the gold control, the page, the scores or the stopping rule reading or judging another way."""
    cases = [row for row in map(json.loads, CASES.read_text().splitlines()) if row["type"] == answer_type]
    cases = [row for row in cases if row["answer"] is not None][:120] or [
        {"text": "The answer is a big dog.", "answer": "big dog"}, {"text": "The answer is the Cat", "answer": "cat"},
    ]  # fmt: skip
    task = dataclasses.replace(load_task(DataConfig(task="jsonl", answer_type=answer_type)), exemplars=())
    questions, paths = [], []
    for number, case in enumerate(cases):
        other = cases[(number + 1) % len(cases)]
        accepted = [case["answer"], other["answer"]] if number % 3 == 0 else [case["answer"]]
        choices = list("pqrstuvwxyz")[:10] if answer_type == "choice" else None
        questions.append({"id": f"{number}", "question": "?", "choices": choices, "answer": accepted[0], "answers": accepted})
        for i, source in enumerate((case, other, case, {"text": "I do not know."})):
            paths.append(path(f"{number}", i, source["text"], source.get("finish", "stop")))
    votes = make_round(tmp_path, task, questions, paths, rule="gold")
    root = epath.Path(tmp_path)
    by_question = [paths[i : i + 4] for i in range(0, len(paths), 4)]
    scores = score(load_questions(root / "audit/gold.jsonl"), by_question, task.reader)
    folder = RunFolder(root)
    (round,), gold = read_rounds(folder, read_plan(folder)), read_gold(folder, task.reader)
    page = {q["id"]: q for q in round_payload(folder, round, {}, {}, gold)["questions"]}
    trained = set(round.trained)
    assert label_precision(votes, gold) == (
        sum(s["correct"] for s in scores if s["prediction"] is not None), sum(s["prediction"] is not None for s in scores),
    )  # fmt: skip
    for vote, scored, question in zip(votes, scores, questions, strict=True):
        id = vote["id"]
        assert vote["answers"] == scored["answers"] and vote["answer"] == scored["prediction"]
        for number, right in enumerate(scored["right"]):
            assert ((id, number) in trained) == right, "the gold control trains on the paths that scores call right"
            assert gold.right(id, vote["answers"][number]) == right
        if id in page:
            shown = page[id]
            assert shown["right"] == scored["correct"]
            assert [p["answer"] for p in shown["paths"] if p["outcome"] != "abstains"] == [a for a in vote["answers"] if a]
            right = {answer for answer, ok in zip(scored["answers"], scored["right"], strict=True) if ok}
            assert {answer for answer, _, ok in shown["counts"] if ok} == right, question


def test_right_is_what_scores_call_right():
    """Catches: a label called wrong because its text differs from gold: sqrt(2)/2 for 1/sqrt(2), spans in another order."""
    for answer_type, answer, accepted in (
        ("math", "\\frac{\\sqrt{2}}{2}", ["\\frac{1}{\\sqrt{2}}"]),
        ("span", "tom ann and bob", ["Ann, Tom, Bob"]),
        ("span", "brady", ["Tom Brady", "Brady"]),
    ):
        from lmsi_jax.analysis.rounds import Gold

        gold = Gold({"q": accepted}, AnswerReader(answer_type))
        assert label_precision([{"id": "q", "answer": answer}], gold) == (1, 1), (answer, accepted)


CHOICES = Task("jsonl", AnswerReader("choice"), ())
THREE = [{"id": "q", "question": "Which?", "choices": ["x", "y", "z"], "answer": "B"}]


def test_the_page_shows_the_answers_that_voted(tmp_path):
    """Catches: a page that reads a path again without the question's options, and shows an answer that never voted."""
    paths = [path("q", 0, "The answer is (B). Checking: the answer is (F)."), path("q", 1, "The answer is (A).")]
    paths += [path("q", 2, "The answer is (C)."), path("q", 3, "The answer is (C).")]
    make_round(tmp_path, CHOICES, THREE, paths)
    folder = RunFolder(epath.Path(tmp_path))
    (round,) = read_rounds(folder, read_plan(folder))
    (question,) = round_payload(folder, round, {}, {}, read_gold(folder, CHOICES.reader))["questions"]
    assert [p["answer"] for p in question["paths"]] == ["B", "A", "C", "C"]


def test_stopping_early_reads_the_options_that_the_vote_reads(tmp_path):
    """Catches: four paths for an option that is not there, which end the sampling and are then thrown away by the vote."""
    write_jsonl(tmp_path / "q.jsonl", THREE)
    config = Config(
        sample=SampleConfig(adaptive=AdaptiveConfig(rule="forecast")), data=DataConfig(task="jsonl", answer_type="choice")
    )
    settings = Parts(config, RunFolder(epath.Path(tmp_path)), config.model).sample_settings()
    enough = sample._enough(settings, epath.Path(tmp_path / "q.jsonl"))
    sampled = lambda letter, n: [SampledPath("q", i, f"The answer is ({letter}).", 5, -1.0, "stop", ()) for i in range(n)]  # noqa: E731
    assert enough(sampled("E", 4)) == 0
    assert enough(sampled("B", 4)) == 4


def test_the_confidence_of_a_vote_that_ended_early_is_that_of_all_paths(tmp_path):
    """Catches: 4 of 4 paths taken for a share of 1, which stopping at the fourth made likely."""
    write_jsonl(tmp_path / "p.jsonl", [path("q", i, "The answer is 3.") for i in range(4)])
    task = Task("jsonl", AnswerReader("number"), ())
    vote_file(epath.Path(tmp_path / "p.jsonl"), epath.Path(tmp_path / "v.jsonl"), task, SelectConfig(), planned=32)
    (vote,) = read_jsonl(tmp_path / "v.jsonl")
    assert vote["confidence"] == expected_share(4, 4, 32) == pytest.approx((4 + 28 * 4.5 / 5.5) / 32)
    assert (vote["num_paths"], vote["planned"], vote["counts"]) == (4, 32, {"3": 4})
    assert expected_share(20, 32, 32) == 20 / 32
    assert expected_margin(2, 5, 60) < expected_share(2, 5, 60), "of five paths two agree and three abstain"
    assert expected_margin(7 - 3, 10, 32) == pytest.approx(expected_share(7, 10, 32) - expected_share(3, 10, 32))


def test_votes_of_other_paths_are_refused(tmp_path):
    """Catches: rows formatted from the votes of another run, whose paths have the same numbers and other texts."""
    paths = [path("q", i, f"The answer is ({letter}).") for i, letter in enumerate("BBA")]
    make_round(tmp_path, CHOICES, THREE, paths)
    folder = epath.Path(tmp_path)
    files = [folder / "rounds" / "1" / f"{name}.jsonl" for name in ("paths", "votes", "examples")]
    write_jsonl(files[0], [{**row, "text": row["text"] + " Well."} for row in paths])
    with pytest.raises(UserError, match="The vote of question 'q' was made from other paths than these"):
        format_file(Config(), CHOICES, Prompts.of(CHOICES), folder / "questions.jsonl", *files)
    write_jsonl(files[1], [{k: v for k, v in row.items() if k != "answers"} for row in read_jsonl(files[1])])
    with pytest.raises(UserError, match="has the `answers` None, which lmsi does not write; vote again"):
        format_file(Config(), CHOICES, Prompts.of(CHOICES), folder / "questions.jsonl", *files)


def test_paths_that_are_numbered_otherwise_keep_their_numbers(tmp_path):
    """Catches: answers that slip to other paths where a file's paths are not numbered from 0 without a gap."""
    paths = [path("q", number, f"The answer is ({letter}).") for number, letter in ((3, "A"), (7, "B"), (9, "B"))]
    (vote,) = make_round(tmp_path, CHOICES, THREE, paths)
    assert (vote["answers"], vote["paths"], vote["kept"]) == (["A", "B", "B"], [3, 7, 9], [7, 9])
    assert {row["path"] for row in read_jsonl(tmp_path / "rounds/1/examples.jsonl")} == {7, 9}
