"""Word problems read back from their texts."""

import random

import pytest

from lmsi_jax.tasks.word_problems import make_problem
from lmsi_jax.tasks.word_reading import read_problem


def test_each_problem_is_read_back_with_its_answer():
    """Catches: an audit that counts right questions as ill-formed, or knows another answer, in any of the five kinds."""
    rng = random.Random(1)
    for _ in range(2000):
        problem = make_problem(rng, (2, 8), 199)
        read = read_problem(problem.question)
        assert read is not None, problem.question
        assert read.answer == problem.answer
        assert sorted((t.value, t.factors or (), t.subtracted) for t in read.terms) == sorted(
            (t.value, t.factors or (), t.subtracted) for t in problem.terms
        )


@pytest.mark.parametrize(
    "question",
    [
        "A school has 23 maps and 53 clocks. How many nuts does the school have?",
        "A school has 23 maps and 53 clocks. How many things does the farm have?",
        "A school has 23 nuts and 53 clocks. How many things does the school have?",
        "Max has 119 marbles, Max has 183 and Rosa has 109. How many marbles is that in all?",
        "Max has 119 marbles and Rosa has 109. How many beads is that in all?",
        "Ann has 103 stones. How many stones does Ann have now?",
        "Ann has 3 stones. Then 4 are lost. How many stones does Ann have now?",
        "Ann has 3 stones. Bob gives Eva 4 more. How many stones does Ann have now?",
        "Ann sold 3 nuts on Monday and 4 on Sunday. How many nuts did Ann make in all?",
        "Ann sold 3 nuts on Monday and 4 on Monday. How many nuts did Ann sell in all?",
        "Ann has 3 boxes of 4 nuts and 5 boxes of 2. How many nuts does Ann have?",
        "Ann has 3 boxes of 4 nuts and 5 from Bob. How many nuts does Bob have?",
        "What is the capital of France?",
        "",
    ],
)
def test_a_question_that_contradicts_itself_has_no_answer(question):
    """Catches: a made-up answer to a question that asks for what it does not count."""
    assert read_problem(question) is None
