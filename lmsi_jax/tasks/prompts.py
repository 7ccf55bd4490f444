"""Prompts: how questions, exemplars and answers are laid out as text."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.core.errors import UserError

STEP_BY_STEP = "Let's think step by step."


@dataclass(frozen=True)
class Exemplar:
    """A worked question of a few-shot prompt. `answer` is as it is written after "The answer is"."""

    question: str
    reasoning: str
    answer: str
    choices: tuple[str, ...] = ()


def question_text(question: str, choices: Sequence[str] | None = None) -> str:
    """The question as it stands in a prompt, up to and with "A:"."""
    options = ""
    if choices:
        letters = string.ascii_uppercase[: len(choices)]
        options = "\nAnswer choices: " + " ".join(f"({a}) {b}" for a, b in zip(letters, choices, strict=True))
    return f"Q: {question}{options}\nA:"


def conclusion(answer: str, answer_type: str) -> str:
    """The sentence that every solution ends with."""
    return f"The answer is ({answer})." if answer_type == "choice" else f"The answer is {answer}."


def few_shot(exemplars: Sequence[Exemplar], answer_type: str, *, reasoning: bool) -> str:
    """The exemplars as a prompt: worked (chain of thought), or with their reasoning removed (standard)."""
    solved = []
    for item in exemplars:
        parts = [question_text(item.question, item.choices)]
        if reasoning:
            parts.append(item.reasoning)
        solved.append(" ".join([*parts, conclusion(item.answer, answer_type)]))
    return "".join(f"{text}\n\n" for text in solved)


def check_stops(exemplars: Sequence[Exemplar], stops: Sequence[str], answer_type: str) -> None:
    """Raise UserError when a stop string stands inside an exemplar's answer: paths like it would be cut short."""
    for item in exemplars:
        answer = f" {item.reasoning} {conclusion(item.answer, answer_type)}"
        for stop in stops:
            if stop in answer:
                raise UserError(
                    f"The stop string {stop!r} occurs in the answer of the exemplar {item.question[:60]!r}: every path written "
                    f"like it would be cut there. Change --config.sample.stops or the exemplar."
                )
