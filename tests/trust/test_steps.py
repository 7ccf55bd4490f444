"""The steps of a path in context: what follows from an error, where numbers come from, and the contract of a task."""

import random
import re

import pytest

from lmsi_jax.tasks.word_problems import STYLES, make_problem, make_solution
from lmsi_jax.trust.quantities import quantities
from lmsi_jax.trust.steps import CHECKS, CONTRACTS, check, check_paths, split

ALL = (*CHECKS, *CONTRACTS)
QUESTION = quantities("Tom has 12 coins. Ann gives Tom 5 more. Then 4 are lost. How many coins does Tom have now?")


def failed(text, answer=None):
    """The (check, step) of each failure."""
    return [(failure.check, failure.step) for failure in check(text, QUESTION, answer).failures]


def test_a_right_solution_fails_nothing():
    """Catches: a check that rejects a right solution."""
    for text in ("12 + 5 = 17. 17 - 4 = 13.", "12 + 5 - 4 = 13.", "With 12 coins and 5 more: 12 + 5 = 17\nNow 17 - 4 = 13"):
        assert failed(f"{text} The answer is 13.", 13) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 + 5 = 18. 18 - 4 = 14. The answer is 14.", [("arithmetic", 0), ("arithmetic", 1)]),
        ("12 + 5 = 17. 17 - 4 = 13. The answer is 14.", [("answer", 2)]),
        ("12 + 5 = 17. 18 - 4 = 14. The answer is 14.", [("carry", 1), ("provenance", 1), ("each_once", 1)]),
        ("12 + 9 = 21. 21 - 4 = 17. The answer is 17.", [("provenance", 0), ("each_once", 0), ("all_used", 2)]),
        ("12 - 4 = 8. The answer is 8.", [("all_used", 1)]),
        ("12 + 5 = 17. 17 - 4 = 13. 13 + 5 = 18. The answer is 18.", [("each_once", 2)]),
        ("4 - 5 = -1. -1 + 12 = 11. The answer is 11.", [("sign", 0)]),
        ("Tom has many coins. The answer is 13.", [("arithmetic", 1), ("all_used", 1)]),
    ],
)
def test_each_check_names_the_step(text, expected):
    """Catches: a check that finds nothing, or blames another step."""
    answer = int(re.findall(r"-?\d+", text)[-1])
    found = failed(text, answer)
    assert found[: len(expected)] == expected or set(expected) <= set(found), found
    assert min(step for _, step in found) == min(step for _, step in expected)


def test_what_follows_an_error_is_not_another_error():
    """Catches: a step that is blamed for the error of an earlier one; a given number that is taken for the wrong result."""
    steps = check("12 + 5 = 18. 18 - 4 = 14. 12 - 4 = 8.", QUESTION, None).steps
    assert [step.verdict for step in steps] == ["wrong", "follows_error", "right"]
    steps = check("4 + 5 = 12. 12 + 5 = 17.", QUESTION, None).steps
    assert [step.verdict for step in steps] == ["wrong", "right"], "12 is given, wherever it comes from"


def planted(rng, text, answer, style):
    """A solution with one error, the step of it, and the answer that it declares; or None where the style has no such place."""
    sentences = [text[a:b] for a, b in split(f"{text} The answer is {answer}.")]
    kind = rng.choice(("slip", "operand", "carry", "final"))
    if kind == "final":
        wrong = answer + rng.choice((-10, -1, 1, 10))
        return " ".join([*sentences[:-1], f"The answer is {wrong}."]), len(sentences) - 1, wrong
    at = rng.randrange(len(sentences) - 1)
    if (kind == "operand" and style == "split") or (kind == "carry" and (at == 0 or style == "terse")):
        return None
    numbers = list(re.finditer(r"\d+", sentences[at]))
    match = numbers[{"slip": -1, "operand": -2, "carry": 0}[kind]]
    wrong = max(0, int(match[0]) + rng.choice((-10, -1, 1, 10)))
    if wrong == int(match[0]):
        return None
    sentences[at] = f"{sentences[at][: match.start()]}{wrong}{sentences[at][match.end() :]}"
    return " ".join(sentences), at, answer


def test_errors_planted_in_generated_solutions_are_found_at_their_step():
    """Catches: an error of any style and kind that is missed or placed wrongly, and false alarms about right solutions."""
    alarms = exact = found = total = 0
    for seed in range(400):
        rng = random.Random(seed)
        problem, style = make_problem(rng, (2, 6), 199), rng.choice(STYLES)
        text, answer = make_solution(rng, problem, style)
        question = quantities(problem.question)
        alarms += not check(f"{text} The answer is {answer}.", question, answer).is_valid(ALL)
        wrong = planted(rng, text, answer, style)
        if wrong is None:
            continue
        checked = check(wrong[0], question, wrong[2])
        total += 1
        found += not checked.is_valid(ALL)
        exact += min((failure.step for failure in checked.failures), default=-1) == wrong[1]
    assert total > 240 and alarms <= 1 and found >= 0.995 * total and exact >= 0.99 * total, (alarms, found, exact, total)


def test_quantities_of_a_question():
    """Catches: a number in words, a percentage or a fraction that a step may use and that counts as invented."""
    found = quantities("A third of the 60 cows and 20% of 1,500 sheep are sold in two weeks. How many a day?")
    assert found.written == (60, 20, 1500)
    assert {3, 2, 7, 0.2, 0.8} <= {float(x) for x in found.known}


@pytest.mark.parametrize("question", ["", "?", "42", "Continue", "How many?", "$$"])
def test_any_question_has_quantities(question):
    """Catches: a question too short for a number and its neighbours."""
    assert check("5 + 3 = 8. The answer is 8.", quantities(question), 8).steps


def test_signs_and_huge_answers():
    """Catches: an operand that loses its sign, a negative quantity that counts as an error, an answer that fills the memory."""
    cold = quantities("The temperature is -5 degrees and falls by 3. What is it now?")
    assert check("-5 - 3 = -8. The answer is -8.", cold, -8).is_valid(("arithmetic", "sign", "provenance", "carry", "answer"))
    taken = quantities("Tom has 3 coins, owes 8 and gets 10.")
    assert check("3 - 8 = -5. -5 + 10 = 5. The answer is 5.", taken, 5).is_valid(ALL)
    for answer in ("1e999999999", "9" * 5000, "B", "yes", "1/0"):
        assert check_paths("How many?", ["5 + 3 = 8."], [answer])[0].is_valid(("answer",))
