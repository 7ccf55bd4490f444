"""Edits of the steps of a path, by program: a wrong result, another notation."""

import contextlib
import operator
import re
from fractions import Fraction

from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.numbers import plain
from lmsi_jax.trust.expressions import UnreadableError
from lmsi_jax.trust.statements import Compute
from lmsi_jax.trust.steps import Step, steps_of
from lmsi_jax.trust.tokens import Number

_DECLARES = re.compile(r"\banswer\b|####|\\boxed", re.IGNORECASE)
_AFTER_MARK = re.compile(r"(>>\s*\$?)(\d[\d,]*(?:\.\d+)?)")
_SUM = re.compile(r"\s*(\d+) ([-+]) (\d+) = (\d+)\.\s*")


def reasoning(text: str) -> list[Step]:
    """Return the steps of a path before it declares its answer."""
    steps = steps_of(truncate_at_next_turn(text))
    declaring = [n for n, step in enumerate(steps) if _DECLARES.search(text, step.start, step.end)]
    return steps[: declaring[-1]] if declaring else steps


def with_error(text: str, step: Step, error: int) -> str | None:
    """Return a step whose last stated result is changed by `error`, or None when it states none or it would be negative.

    The result keeps its decimals and thousands separators. After a calculator mark ("<<48/2=24>>24") both copies change.
    """
    stated = [each for each in step.statements if each.result is not None and each.stated is not None]
    if not stated or stated[-1].result is None or stated[-1].stated is None or stated[-1].result + error < 0:
        return None
    (start, end), wrong = stated[-1].stated, stated[-1].result + error
    rest = text[end : step.end]
    copy = _AFTER_MARK.match(rest) if stated[-1].is_mark else None
    if copy:
        rest = f"{copy[1]}{written_as(copy[2], wrong)}{rest[copy.end() :]}"
    return f"{text[step.start : start]}{written_as(text[start:end], wrong)}{rest}"


def written_as(as_before: str, value: Number) -> str:
    """Return a number with the decimals and thousands separators of another."""
    places = len(as_before.rpartition(".")[2]) if "." in as_before else 0
    if Fraction(value * 10**places).denominator > 1:
        return plain(value)
    digits = f"{int(value * 10**places):0{places + 1}d}"
    whole = f"{int(digits[: len(digits) - places]):{',' if ',' in as_before else ''}}"
    return f"{whole}.{digits[-places:]}" if places else whole


def paraphrased(text: str, step: Step) -> str | None:
    """Return the arithmetic of a step in another notation, or None when it is no single sum or product of two integers.

    A sum in one equation becomes tens and ones apart; any other notation becomes an equation. The result stays as it is
    stated, right or wrong.
    """
    equation = _SUM.fullmatch(text, step.start, step.end)
    if equation:
        return _apart(int(equation[1]), equation[2], int(equation[3]), equation[4])
    stated = [each for each in step.statements if not each.is_part]
    numbers = [n for each in stated for n in (*each.operands, each.result) if isinstance(n, int) and n >= 0]
    if len(stated) != 1 or len(stated[0].operands) != 2 or len(numbers) != 3 or stated[0].compute is None:
        return None
    a, b, result = numbers
    sign = _operator(stated[0].compute, a, b)
    return f"{a} {sign} {b} = {result}." if sign else None


def _operator(compute: Compute, a: int, b: int) -> str | None:
    """Return the operation of a statement, by what it gives for its own operands and for two others."""
    for sign, function in (("+", operator.add), ("-", operator.sub), ("*", operator.mul)):
        with contextlib.suppress(UnreadableError):
            if all(compute([x, y]) == function(x, y) for x, y in ((a, b), (a + 2, b), (a + 3, b + 2))):
                return sign
    return None


def _apart(a: int, operator: str, b: int, result: str) -> str:
    (tens, ones), (more_tens, more_ones) = divmod(a, 10), divmod(b, 10)
    sign = 1 if operator == "+" else -1
    parts = [f"{x} {operator} {y} = {x + sign * y}" for x, y in ((tens * 10, more_tens * 10), (ones, more_ones))]
    return f"{a} {operator} {b}: {', '.join(parts)}, so {result}."
