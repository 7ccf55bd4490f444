"""Corrupted solutions: each is wrong in the way that its kind says."""

import random
import re

import pytest

from lmsi_jax.analysis.faithfulness import roc_area
from lmsi_jax.tasks.word_problems import STYLES, make_problem, make_solution
from lmsi_jax.trust.corruptions import CORRUPTIONS, corrupted
from lmsi_jax.trust.steps import check_paths
from lmsi_jax.trust.verification import verification, verification_question


def failures(question, text):
    answer = re.findall(r"answer is (\d+)", text)
    (checked,) = check_paths(question, [text], [answer[-1] if answer else None])
    return {failure.check for failure in checked.failures}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_found_by_a_check_of_its_kind(kind):
    """Catches: a copy that is still right, one that is corrupted in more than one way, a kind that finds no place."""
    expected = {
        "result": {"arithmetic"}, "operand": {"arithmetic"}, "carried": {"arithmetic"}, "answer": {"answer"},
        "removed": {"provenance", "all_used"},
    }[kind]  # fmt: skip
    rng, made = random.Random(0), 0
    for number in range(60):
        problem, style = make_problem(rng, (3, 5), 199), STYLES[number % 4]
        reasoning, answer = make_solution(rng, problem, style)
        text = f"{reasoning} The answer is {answer}."
        assert failures(problem.question, text) == set()
        copy = corrupted(problem.question, text, kind, random.Random(number))
        if copy is None:
            continue
        made += 1
        found = failures(problem.question, copy)
        assert copy != text and expected & found, (copy, found)
        assert verification(text) == (verification(text)[0], True)
        if kind in ("result", "answer", "carried"):
            check, is_right = verification(copy)
            assert not is_right and re.search(r"\d+, stated \d+: wrong\.$", check)
        if kind == "carried":
            assert found == {"arithmetic"} and copy.split()[-1] != text.split()[-1], "the rest follows from the error"
        if kind == "answer":
            assert found == {"answer"} and copy.rpartition(" The answer")[0] == reasoning
        if kind == "removed":
            assert len(copy) < len(text) and copy.split()[-1] == text.split()[-1]
    assert made >= {"removed": 20, "carried": 40, "operand": 45}.get(kind, 60), made


def test_what_has_no_steps_is_not_corrupted():
    """Catches: a crash on a path without arithmetic, a corruption behind the next question that a model invents."""
    for text in ("", "It is Ann. The answer is Ann.", "The answer is 5."):
        assert [corrupted("Q", text, kind, random.Random(0)) for kind in CORRUPTIONS] == [None] * len(CORRUPTIONS)
    text = "1 + 2 = 3. The answer is 3.\n\nQ: 4 + 5?\nA: 4 + 5 = 9. The answer is 9."
    assert "Q:" not in corrupted("1 and 2?", text, "result", random.Random(0))
    asked = verification_question("1 + 2?", ("3", "4"), f" {text}")
    assert asked == "1 + 2?\n(A) 3\n(B) 4\nSolution: 1 + 2 = 3. The answer is 3.\nIs this solution right?"


@pytest.mark.parametrize("seed", range(12))
def test_slips_that_cannot_be_carried_are_left_out(seed):
    """Catches: a division by zero that ends the run, a copy beside a calculator mark, a fraction that gives the copy away."""
    for question, text in (
        ("5, 3 and 10?", "5 - 3 = 2. 10 / 2 = 5. The answer is 5."),
        ("12, 4 and 30?", "12 / 4 = 3. 30 / 3 = 10. The answer is 10."),
        ("48 and 24?", "48 + 24 = <<48+24=72>>72. The answer is 72."),
        ("700, 800 and 3?", "700 + 800 = 1,500. 1,500 / 3 = 500. The answer is 500."),
    ):  # fmt: skip
        copy = corrupted(question, text, "carried", random.Random(seed))
        assert copy is None or ("/" not in copy.rpartition("=")[2] and "<<" not in copy)


def test_verification_computes_each_step_again():
    """Catches: a right value that the text states wrongly, steps after the first error, an answer that is not compared."""
    assert verification(" 12 + 5 = 17. 17 + 9 = 27. 27 + 1 = 28. The answer is 28.") == (
        "12 + 5 = 17, stated 17. 17 + 9 = 26, stated 27: wrong.",
        False,
    )
    assert verification("3 boxes of 4 make 12. The answer is 13.") == (
        "3 boxes of 4 make 12, stated 12. The last result is 12, stated 13: wrong.",
        False,
    )
    assert verification("It is Ann. The answer is Ann.") == ("", True)


def test_the_area_under_the_curve():
    """Catches: ties that count as wins, questions that are drawn apart from their copies, an area of an empty side."""
    assert roc_area({"a": 0.9, "b": 0.8}, {"a": 0.1, "b": 0.7})["value"] == 1.0
    assert roc_area({"a": 0.5}, {"a": 0.5})["value"] == 0.5
    assert roc_area({"a": 0.9, "b": 0.2}, {"c": 0.5})["value"] == 0.5
    rng = random.Random(0)
    many = roc_area({str(n): rng.gauss(1, 1) for n in range(400)}, {str(n): rng.gauss(0, 1) for n in range(400)})
    assert many["low"] < many["value"] < many["high"] and abs(many["value"] - 0.760) < 0.04
