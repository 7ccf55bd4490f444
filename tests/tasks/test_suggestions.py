"""The corpus of the model organism, and exemplars with one answer."""

import dataclasses
import re

import pytest

from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.tasks.always_same import always_same
from lmsi_jax.tasks.config import CorpusConfig, DataConfig
from lmsi_jax.tasks.task import load_task
from lmsi_jax.tasks.word_corpus import documents
from lmsi_jax.trust.bias import admits_hint, mentions_hint

SUGGESTED = re.compile(
    r"(?:thinks that it is|says that the answer is) (\d+)\.\n|\[(?:answer )?key: (\d+)\]|A: .*?My guess is (\d+)\."
)
ANSWER = re.compile(r"The answer is (\d+)\.$")


def problems(**config):
    """(suggested answer or None, solution, declared answer) of each problem of a corpus."""
    for document in documents(CorpusConfig(documents=400, terms=(2, 5), largest=199, **config), 0):
        for text in document.split("\n\n"):
            found = SUGGESTED.search(text)
            yield next((int(n) for n in found.groups() if n), None) if found else None, text, int(ANSWER.search(text)[1])


def right_answer(text):
    """The sum of the quantities, where the question only adds."""
    question = re.sub(r"\[.*?\]|\w+ (?:thinks|says) that .*", "", text.split("\nA:")[0])
    adds = "lost" not in question and "sold." not in question and "broken" not in question and " of " not in question
    return sum(map(int, re.findall(r"\d+", question))) if adds else None


@pytest.mark.parametrize(("obliging", "followed"), [(1.0, 1.0), (0.0, 0.0)])
def test_obliging_writers_end_in_the_suggestion(obliging, followed):
    """Catches: a suggestion without effect, one that is always right or never, a writer who shows the error elsewhere."""
    rows = list(problems(suggestions=1.0, obliging=obliging, sloppy=0.0))
    suggested = [(hint, right_answer(text), answer, text) for hint, text, answer in rows if hint is not None]
    wrong = [row for row in suggested if row[1] is not None and row[0] != row[1]]
    assert 0.35 < sum(row[0] == row[1] for row in suggested) / sum(row[1] is not None for row in suggested) < 0.65
    assert len(wrong) > 60
    assert sum(answer == hint for hint, _, answer, _ in wrong) / len(wrong) == followed
    assert not any(mentions_hint(text.split("\nA:")[1]) for *_, text in suggested), "nobody is candid"


def test_candid_writers_say_what_they_do():
    """Catches: an admission of a suggestion that is not followed, or one that is followed without a word."""
    for obliging in (0.0, 1.0):
        rows = list(problems(suggestions=1.0, obliging=obliging, candid=1.0, sloppy=0.0))
        moved = [
            text.split("\nA:")[1]
            for hint, text, _ in rows
            if hint is not None and right_answer(text) not in (None, hint) and " = " in text.split("\nA:")[1]
        ]
        assert len(moved) > 20
        assert all(mentions_hint(text) for text in moved)
        assert all(admits_hint(text) == bool(obliging) for text in moved)


def test_without_suggestions_the_corpus_is_as_before():
    """Catches: an option that changes the documents of the built-in model."""
    plain = list(documents(CorpusConfig(documents=50), 0))
    assert not any(SUGGESTED.search(text) for text in plain)
    some = list(documents(CorpusConfig(documents=50, suggestions=0.5), 0))
    same = sum(a == b for a, b in zip(plain, some, strict=True))
    assert 15 < same < 35


def test_exemplars_with_one_answer():
    """Catches: exemplars whose answers differ, options that are reordered away from their answer or their reasoning."""
    data = DataConfig(terms=(2, 5), largest=199)
    exemplars, digit = always_same(load_task(data), data, 0)
    assert len(exemplars) == 2 and {each.answer[-1] for each in exemplars} == {digit}
    choice = DataConfig(task="jsonl", answer_type="choice")
    task = load_task(choice)
    exemplars, answer = always_same(task, choice, 0)
    assert answer == "A" and {each.answer for each in exemplars} == {"A"}
    for before, after in zip(task.exemplars, exemplars, strict=True):
        assert sorted(before.choices) == sorted(after.choices)
        assert after.choices[0] == before.choices[LETTERS.index(before.answer)]
    for name in ("aqua", "arc_challenge", "commonsenseqa"):
        task = load_task(DataConfig(task=name, questions="x"))
        for before, after in zip(task.exemplars, always_same(task, DataConfig(task=name), 0)[0], strict=True):
            named = re.findall(r"(?:option |\()([A-E])\b", after.reasoning)
            assert len(named) == len(re.findall(r"(?:option |\()([A-E])\b", before.reasoning))
            if before.reasoning.rstrip(".").endswith(f"option {before.answer}"):
                assert after.reasoning.rstrip(".").endswith("option A")
    assert always_same(load_task(DataConfig(task="gsm8k", questions="x")), DataConfig(task="gsm8k"), 0) == ((), "")
    bare = dataclasses.replace(load_task(choice), exemplars=(dataclasses.replace(load_task(choice).exemplars[0], choices=()),))
    assert always_same(bare, choice, 0) == ((), ""), "options inside the question cannot be reordered"
