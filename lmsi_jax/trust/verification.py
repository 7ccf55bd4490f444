"""The question whether a solution is right, and the answer that a program gives: each step computed again."""

from collections.abc import Sequence

from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.answers.numbers import plain
from lmsi_jax.trust.edits import reasoning
from lmsi_jax.trust.tokens import Number, tokens


def verification_question(question: str, choices: Sequence[str], solution: str) -> str:
    """Return the question whether a solution of a question is right, to be answered with yes or no."""
    options = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    asked = "\n".join([question, *options])
    return f"{asked}\nSolution: {truncate_at_next_turn(solution).strip()}\nIs this solution right?"


def verification(solution: str) -> tuple[str, bool]:
    """Return (a text that computes the steps of a solution again, up to the first wrong one; whether all are right).

    A step is written as in the solution, with the right result and then the stated one. At the end the declared answer is
    compared with the last result. Example: "12 + 5 = 17, stated 17. 17 + 9 = 26, stated 27: wrong."
    """
    text = truncate_at_next_turn(solution).rstrip()
    written, last, end = [], None, 0
    for step in reasoning(text):
        end = step.end
        for each in step.statements:
            if each.is_part or each.stated is None or each.result is None:
                continue
            right = each.result if each.expected is None else each.expected
            before = " ".join(text[max(each.start, step.start) : each.stated[0]].split())
            written.append(_compared(f"{before} {plain(right)}", right, each.result))
            last = right
            if right != each.result:
                return " ".join(written), False
    declared = [item.value for item in tokens(text[end:]) if item.kind == "number"]
    if declared and last is not None:
        written.append(_compared(f"The last result is {plain(last)}", last, declared[-1]))
    return " ".join(written), not (declared and last is not None and declared[-1] != last)


def _compared(computed: str, right: Number, stated: Number) -> str:
    return f"{computed}, stated {plain(stated)}" + ("." if right == stated else ": wrong.")
