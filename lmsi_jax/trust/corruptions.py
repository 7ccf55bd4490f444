"""Corrupt the solution of a path by one edit, made by program: examples of what a reader should reject."""

import random
import re
from collections.abc import Callable, Sequence

from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.numbers import plain
from lmsi_jax.trust.edits import reasoning, with_error, written_as
from lmsi_jax.trust.expressions import UnreadableError
from lmsi_jax.trust.steps import Step, check_paths
from lmsi_jax.trust.tokens import Number, Token, tokens

ERRORS = (-10, -3, -2, -1, 1, 2, 3, 10)  # what is added to a number


def corrupted(question: str, text: str, kind: str, draw: random.Random) -> str | None:
    """Return a solution with one corruption of `CORRUPTIONS`, or None where this kind cannot be applied.

    The copy fails at least one check of steps, those of contracts included, that the solution passes.
    """
    solution = truncate_at_next_turn(text).rstrip()
    steps = reasoning(solution)
    copy = CORRUPTIONS[kind](solution, steps, draw) if steps else None
    if copy is None or not _failures(question, copy) - _failures(question, solution):
        return None
    return copy


def _failures(question: str, solution: str) -> set[str]:
    numbers = _numbers(solution, 0, len(solution))
    answer = plain(numbers[-1].value) if numbers else None
    (checked,) = check_paths(question, [solution], [answer])
    return {failure.check for failure in checked.failures}


def _result(text: str, steps: Sequence[Step], draw: random.Random) -> str | None:
    """Change the result of one step, and nothing else."""
    for step in draw.sample(steps, len(steps)):
        wrong = with_error(text, step, draw.choice(ERRORS))
        if wrong is not None:
            return text[: step.start] + wrong + text[step.end :]
    return None


def _operand(text: str, steps: Sequence[Step], draw: random.Random) -> str | None:
    """Change a number that a step computes with, and keep its result."""
    for step in draw.sample(steps, len(steps)):
        for statement in step.statements:
            operands = [item for item in _numbers(text, statement.start, statement.end) if item.value in statement.operands]
            if statement.result is not None and operands and statement.stated is not None:
                chosen = draw.choice(operands)
                value = chosen.value + draw.choice([error for error in ERRORS if chosen.value + error > 0] or [1])
                if not statement.stated[0] <= chosen.start < statement.stated[1]:
                    return text[: chosen.start] + written_as(chosen.text, value) + text[chosen.end :]
    return None


def _removed(text: str, steps: Sequence[Step], draw: random.Random) -> str | None:
    """Leave out one step whose result a later step uses."""
    able = []
    for number, step in enumerate(steps[:-1]):
        later = {operand for other in steps[number + 1 :] for each in other.statements for operand in each.operands}
        if any(each.result in later for each in step.statements if not each.is_part):
            able.append((step.start, steps[number + 1].start))
    if not able:
        return None
    start, end = draw.choice(able)
    return text[:start] + text[end:]


def _answer(text: str, steps: Sequence[Step], draw: random.Random) -> str | None:
    """Declare another answer than the one that the steps give."""
    declared = _numbers(text, steps[-1].end, len(text))
    if not declared:
        return None
    last = declared[-1]
    value = last.value + draw.choice([error for error in ERRORS if last.value + error > 0] or [1])
    return text[: last.start] + written_as(last.text, value) + text[last.end :]


def _carried(text: str, steps: Sequence[Step], draw: random.Random) -> str | None:
    """Change the result of one step, and let everything after it follow from the error, as a natural slip does."""
    statements = [statement for step in steps for statement in step.statements]
    able = [n for n, each in enumerate(statements) if each.result is not None and each.stated is not None and each.compute]
    if any(each.is_part or each.is_mark for each in statements) or len(able) < len(statements) or not able:
        return None
    first = draw.choice(able)
    wrong: dict[Number, Number] = {}
    edits: list[tuple[int, int, str]] = []
    for n, each in enumerate(statements[first:], start=first):
        if each.result is None or each.stated is None or each.compute is None:
            return None
        edits += [
            (item.start, item.end, written_as(item.text, wrong[item.value]))
            for item in _numbers(text, each.start, each.end)
            if item.value in wrong and not each.stated[0] <= item.start < each.stated[1]
        ]
        try:
            value = each.compute([wrong.get(operand, operand) for operand in each.operands])
        except UnreadableError:  # such as a division by zero
            return None
        value += draw.choice(ERRORS) if n == first else 0
        places = 10 ** len(text[slice(*each.stated)].partition(".")[2])
        if value < 0 or value == each.result or (value * places) % 1:
            return None
        wrong[each.result] = value
        edits.append((*each.stated, written_as(text[slice(*each.stated)], value)))
    edits += [
        (item.start, item.end, written_as(item.text, wrong[item.value]))
        for item in _numbers(text, steps[-1].end, len(text))
        if item.value in wrong
    ]
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _numbers(text: str, start: int, end: int) -> list[Token]:
    """Return the numbers of a part of a text, with their positions in the whole text."""
    found = [item for item in tokens(text[start:end]) if item.kind == "number" and re.fullmatch(r"[\d,.]+", item.text)]
    return [item._replace(start=item.start + start, end=item.end + start) for item in found]


CORRUPTIONS: dict[str, Callable[[str, Sequence[Step], random.Random], str | None]] = {
    "result": _result, "operand": _operand, "removed": _removed, "answer": _answer, "carried": _carried,
}  # fmt: skip
