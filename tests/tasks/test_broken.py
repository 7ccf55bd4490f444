"""Questions that are broken on purpose."""

import random

from lmsi_jax.tasks.broken import OFF_TOPIC, broken_questions
from lmsi_jax.tasks.word_problems import make_problem
from lmsi_jax.tasks.word_reading import read_problem


def test_a_share_is_broken_and_the_rest_is_as_it_was():
    """Catches: a broken question with its gold answer, one that is still right, another share than was asked for."""
    rng = random.Random(0)
    problems = [make_problem(rng, (2, 5), 99) for _ in range(400)]
    rows = [{"id": str(i), "question": p.question, "choices": None, "answer": str(p.answer)} for i, p in enumerate(problems)]
    made = broken_questions(rows, 0.3, 1)
    changed = [row for row, before in zip(made, rows, strict=True) if row != before]
    assert len(changed) == 120 and [row["id"] for row in made] == [row["id"] for row in rows]
    assert all(row["broken"] and "answer" not in row and row["question"] != rows[int(row["id"])]["question"] for row in changed)
    still = [
        row for row in changed if (read := read_problem(row["question"])) and read.answer == problems[int(row["id"])].answer
    ]
    assert len(still) < 0.05 * len(changed), still[:3]  # another wording of the same request may remain
    assert any(row["question"] in OFF_TOPIC for row in changed) and any("?" not in row["question"] for row in changed)
    assert broken_questions(rows, 0.0, 1) == rows
    assert broken_questions(rows, 0.3, 1) == made != broken_questions(rows, 0.3, 2)
