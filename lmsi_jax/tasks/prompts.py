"""Lay out questions, exemplars and answers as the text of prompts."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.core.errors import UserError

UNDECIDED = "it is not possible to tell"  # the wording of the answer "unknown"
STEP_BY_STEP = "Let's think step by step."


@dataclass(frozen=True)
class Exemplar:
    """A worked example of a few-shot prompt. `answer` is the text after "The answer is", or the letter of a choice."""

    question: str
    reasoning: str
    answer: str
    choices: tuple[str, ...] = ()


def with_choices(question: str, choices: Sequence[str] | None = None) -> str:
    """Return the question, followed by a line with its lettered options if it has any."""
    if not choices:
        return question
    letters = string.ascii_uppercase[: len(choices)]
    return f"{question}\nAnswer choices: " + " ".join(f"({a}) {b}" for a, b in zip(letters, choices, strict=True))


def question_text(question: str, choices: Sequence[str] | None = None) -> str:
    """Return the question as it appears in a plain prompt, from "Q:" to "A:"."""
    return f"Q: {with_choices(question, choices)}\nA:"


def conclusion(answer: str, answer_type: str) -> str:
    """Return the sentence that ends every solution: "The answer is ..."."""
    if answer_type == "choice":
        return f"The answer is ({answer})."
    return f"The answer is {UNDECIDED if answer_type == 'yes_no' and answer == 'unknown' else answer}."


def solution(exemplar: Exemplar, answer_type: str, *, reasoning: bool) -> str:
    """Return an exemplar's answer, with its chain of thought or without it (standard prompting)."""
    parts = [exemplar.reasoning] if reasoning else []
    return " ".join([*parts, conclusion(exemplar.answer, answer_type)])


def few_shot(exemplars: Sequence[Exemplar], answer_type: str, *, reasoning: bool) -> str:
    """Return the exemplars as the beginning of a plain prompt."""
    solved = (f"{question_text(e.question, e.choices)} {solution(e, answer_type, reasoning=reasoning)}" for e in exemplars)
    return "".join(f"{text}\n\n" for text in solved)


def check_stops(exemplars: Sequence[Exemplar], stops: Sequence[str], answer_type: str) -> None:
    """Raise UserError when a stop string occurs in an exemplar's answer, because similar paths would be cut short."""
    for item in exemplars:
        answer = f" {solution(item, answer_type, reasoning=True)}"
        for stop in stops:
            if stop in answer:
                raise UserError(
                    f"The stop string {stop!r} occurs in the answer of the exemplar {item.question[:60]!r}: every path written "
                    f"like it would be cut there. Change --config.sample.stops or the exemplar."
                )
