"""Breaks questions by program, to see what poor unlabelled data do to self-improvement."""

import random
from collections.abc import Sequence

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.questions import GOLD

OFF_TOPIC = (
    "What is the capital of the country to the north of yours?",
    "Which of your friends would you rather travel with, and why?",
    "How do birds find their way home in winter?",
    "Who wrote the book that you liked most last year?",
    "Is it better to read in the morning or in the evening?",
    "Why does bread rise when it is baked?",
)


def broken_questions(rows: Sequence[Record], share: float, seed: int) -> list[Record]:
    """Return questions of which a random `share` is broken, each in one of four ways; the others are as they were.

    A broken question is cut off, lacks its last sentence, ends with that of another question, or is off the topic.
    """
    draw = random.Random(f"broken {seed}")
    chosen = set(draw.sample(range(len(rows)), round(share * len(rows))))
    result = []
    for i, row in enumerate(rows):
        if i in chosen:
            other = rows[draw.randrange(len(rows))]
            row = {key: value for key, value in row.items() if key not in GOLD}
            row = {**row, "question": _broken(row["question"], other["question"], draw), "broken": True}
        result.append(row)
    return result


def _broken(question: str, other: str, draw: random.Random) -> str:
    words, (facts, asked), (_, asks_other) = question.split(), _parts(question), _parts(other)
    ways = [" ".join(words[: max(1, len(words) * 3 // 5)]), draw.choice(OFF_TOPIC)]
    if facts:
        ways += [facts, f"{facts} {asks_other}"] if asks_other != asked else [facts]
    return draw.choice(ways)


def _parts(question: str) -> tuple[str, str]:
    """Return a question without its last sentence, and this sentence."""
    facts, stop, asked = question.rpartition(". ")
    return facts + stop.strip(), asked
