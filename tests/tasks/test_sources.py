"""Every source of questions behind the one protocol."""

import re

import pytest

from lmsi_jax.answers.extract import TYPES, canonical
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.tasks.sources import (
    SOURCES,
    BoxProblems,
    ListProblems,
    LongerWordProblems,
    OtherWordProblems,
    PublishedSet,
    QuestionFiles,
    QuestionSource,
    StoryProblems,
    WordProblems,
    question_source,
)
from lmsi_jax.tasks.task import EXEMPLARS, load_task
from lmsi_jax.tasks.word_reading import read_problem

# (class, task, source): the rows of SOURCES, a data set from its published files, and one from question files.
KINDS = [
    (WordProblems, "word_problems", "jsonl"),
    (ListProblems, "list_problems", "jsonl"),
    (StoryProblems, "story_problems", "jsonl"),
    (BoxProblems, "box_problems", "jsonl"),
    (LongerWordProblems, "longer_word_problems", "jsonl"),
    (OtherWordProblems, "other_word_problems", "jsonl"),
    (QuestionFiles, "jsonl", "jsonl"),
    (QuestionFiles, "gsm8k", "jsonl"),
    (PublishedSet, "gsm8k", "files"),
]


@pytest.fixture
def folder(tmp_path):
    """Two questions to train on and two to score, as question files and as the published files of gsm8k."""
    for split in ("train", "test"):
        rows = [{"question": f"{split} {number}?", "answer": f"{number}"} for number in (1, 2)]
        write_jsonl(tmp_path / f"{split}.jsonl", [{**row, "answer": f"#### {row['answer']}"} for row in rows])
        write_jsonl(tmp_path / f"{split}-questions.jsonl", [{**row, "id": row["question"]} for row in rows])
    return tmp_path


def config(folder, task: str, source: str, **others) -> DataConfig:
    files = {"questions": f"{folder}/train-questions.jsonl", "eval_questions": f"{folder}/test-questions.jsonl"}
    data = {"task": task, "source": source, "folder": str(folder), "num_questions": 2, "num_eval": 2, **files, **others}
    return DataConfig(**data)


@pytest.mark.parametrize(("kind", "task", "source"), KINDS, ids=["-".join(row[1:]) for row in KINDS])
def test_each_source_is_what_the_protocol_says(folder, kind, task, source):
    """Catches: a source without a part of the protocol, with gold that is not of its type, or that draws anew each time."""
    asked = config(folder, task, source)
    found = question_source(asked)
    assert type(found) is kind and isinstance(found, QuestionSource)
    assert found.answer_type in TYPES and found.labels == () and found.is_scored
    assert (EXEMPLARS / f"{found.exemplars}.jsonl").exists()
    train, held_out = found.training(0), found.held_out(0)
    assert [len(train), len(held_out)] == [2, 2]
    assert {"id", "question", "choices"} <= train[0].keys() & held_out[0].keys()
    assert all(canonical(row["answer"], found.answer_type) == row["answer"] for row in held_out)
    assert not {row["question"] for row in train} & {row["question"] for row in held_out}
    again = question_source(asked)
    assert (again.training(0), again.held_out(0)) == (train, held_out)
    task_of_source = load_task(asked)
    assert (task_of_source.name, task_of_source.answer_type) == (task, found.answer_type)


def test_every_source_has_an_example_here():
    """Catches: a new row of SOURCES, or a class of data sets, that the test above does not see."""
    assert {task for _, task, _ in KINDS} - DATASETS.keys() == SOURCES.keys()
    assert {kind for kind, _, _ in KINDS} == {type(SOURCES[name](DataConfig())) for name in SOURCES} | {PublishedSet}


def test_parts_and_neighbours_of_the_word_problems_are_what_their_names_say():
    """Catches: a test of generalisation on the questions that were trained on, or answers that do not follow from the text."""
    longer = question_source(DataConfig(task="longer_word_problems", terms=(2, 5), num_questions=1, num_eval=200))
    assert {row["terms"] for row in longer.held_out(0)} == {6, 7, 8}
    for name, words in (
        ("list", "in all|have|together"),
        ("story", "have now"),
        ("box", "[0-9] (boxes|bags|jars|packs|trays)"),
    ):
        rows = question_source(DataConfig(task=f"{name}_problems", num_questions=1, num_eval=100)).held_out(0)
        assert all(re.search(words, row["question"]) for row in rows), name
    other = question_source(DataConfig(task="other_word_problems", largest=50, num_questions=1, num_eval=300)).held_out(0)
    for row in other:
        a, b, *rest = map(int, re.findall(r"\d+", row["question"]))
        if "each" in row["question"]:
            expected = a * b + rest[0]
        elif "still need" in row["question"]:
            expected = a - b - rest[0]
        else:
            expected = 2 * a + (b if " more " in row["question"] else -b)
        assert int(row["answer"]) == expected >= 1, row
        assert read_problem(row["question"]) is None, "the corpus has no such question"


def test_question_files_without_held_out_ones_are_not_scored(folder):
    """Catches: an evaluation of nothing, where only questions to train on are named."""
    found = question_source(config(folder, "jsonl", "jsonl", eval_questions=""))
    assert not found.is_scored and found.held_out(0) == [] and len(found.training(0)) == 2


def test_a_set_is_read_alike_from_its_files_and_from_question_files(folder):
    """Catches: labels, an answer type or exemplars that hang on where the questions of a data set lie."""
    for name in DATASETS:
        ways = [question_source(config(folder, name, source)) for source in ("jsonl", "files", "tfds")]
        assert len({(way.answer_type, way.labels, way.exemplars) for way in ways}) == 1, name


@pytest.mark.parametrize(("task", "near"), [("word_problem", "word_problems"), ("json", "jsonl"), ("anli_3", "anli_a3")])
def test_an_unknown_task_names_the_nearest(task, near):
    """Catches: a misspelled task that ends in a KeyError, or a message that does not say which tasks there are."""
    with pytest.raises(UserError) as raised:
        question_source(DataConfig(task=task))
    message = str(raised.value)
    assert f"There is no data.task '{task}'; the nearest is '{near}'." in message
    assert all(name in message for name in (*SOURCES, *DATASETS))
