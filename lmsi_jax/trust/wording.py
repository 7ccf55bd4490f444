"""Arithmetic that a text states in words, such as "12 and 5 make 17" and "20 less the 4 sold leaves 16"."""

import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from lmsi_jax.trust.expressions import UnreadableError, distance
from lmsi_jax.trust.mismatch import RIGHT, UNCHECKED, WRONG, is_qualified
from lmsi_jax.trust.statements import Statement
from lmsi_jax.trust.tokens import Number, tokens

_N = r"(-?\$?\d{1,15}(?:,\d{3})*(?:\.\d{1,9})?)"
_NAME = r"(?:(?!and\b|of\b)[A-Za-z]+ )?"
_UNIT = r"(?: (?!and\b|from\b|by\b|of\b)[a-z]+)?"
_IS = r"(?:is|are|makes?|gives?|equals|leaves|yields)(?: us| a total of)?"


def _divide(a: Number, b: Number) -> Number:
    if not b:
        raise UnreadableError
    return Fraction(a) / b


# (a word without which the pattern cannot match, the pattern of two operands and a result, the operation)
_FORMS: tuple[tuple[str, re.Pattern[str], Callable[[Number, Number], Number]], ...] = tuple(
    (word, re.compile(rf"(?<![*/+=-] )(?<!, )(?<!\band )(?<![\w.,$-]){pattern} {_N}(?![\w.,/%]*\d)(?! ?[-+*/x=])"), function)
    for word, pattern, function in (
        ("make", rf"{_NAME}{_N}{_UNIT} and {_NAME}{_N}{_UNIT} makes?", operator.add),
        ("less", rf"{_N}{_UNIT} less(?: the)? {_N}{_UNIT} leaves", operator.sub),
        ("make", rf"{_N} [a-z]+ of {_N}{_UNIT} makes?", operator.mul),
        ("sum", rf"(?i:the sum of) {_N} and {_N} {_IS}", operator.add),
        ("difference", rf"(?i:the difference between) {_N} and {_N} {_IS}", distance),
        ("product", rf"(?i:the product of) {_N} and {_N} {_IS}", operator.mul),
        ("dding", rf"(?i:adding) {_N}{_UNIT} (?:and|to) {_N}{_UNIT} {_IS}", operator.add),
        ("ubtracting", rf"(?i:subtracting) {_N}{_UNIT} from {_N}{_UNIT} {_IS}", lambda a, b: b - a),
        ("ultiplying", rf"(?i:multiplying) {_N}{_UNIT} (?:and|by) {_N}{_UNIT} {_IS}", operator.mul),
        ("ividing", rf"(?i:dividing) {_N}{_UNIT} by {_N}{_UNIT} {_IS}", _divide),
        ("quotient", rf"(?i:the quotient of) {_N} and {_N} {_IS}", _divide),
        ("added", rf"{_N}{_UNIT} added to {_N}{_UNIT} {_IS}", operator.add),
        ("subtracted", rf"{_N}{_UNIT} subtracted from {_N}{_UNIT} {_IS}", lambda a, b: b - a),
        ("take away", rf"{_N}{_UNIT} take away {_N}{_UNIT} {_IS}", operator.sub),
        ("more than", rf"{_N} more than {_N} is", operator.add),
        ("less than", rf"{_N} less than {_N} is", lambda a, b: b - a),
    )
)
_RUNNING = re.compile(rf"\bWith (?:[A-Za-z]+ )?{_N} that (?:is|makes) {_N}(?![\w.,/%]*\d)")
_APART = re.compile(rf"(?<![+*/=-] )(?<![\w.,]){_N} ([-+]) {_N}: ([^\n:]{{1,200}}?),? so {_N}(?![\w.,/%]*\d)")


def verbal_statements(text: str) -> Iterator[Statement]:
    """Yield the statements in words. The first operand of a running total ("With Tom 5 that is 17") is the last result."""
    for word, pattern, function in _FORMS:
        for match in pattern.finditer(text) if word in text else ():
            first, second, result = map(_value, match.groups())
            yield from _statement(match, (first, second), result, function)
    if "With " in text:
        for match in _RUNNING.finditer(text):
            addend, result = map(_value, match.groups())
            yield Statement(match.start(), match.end(), UNCHECKED, (addend,), result, is_running=True, stated=match.span(2))


def place_value_statements(text: str) -> Iterator[Statement]:
    """Yield the statements that calculate tens and ones apart: "35 + 23: 30 + 20 = 50, 5 + 3 = 8, so 58"."""
    if ", so " in text and ": " in text:
        for match in _APART.finditer(text):
            first, second, result = _value(match[1]), _value(match[3]), _value(match[5])
            yield from _statement(match, (first, second), result, operator.add if match[2] == "+" else operator.sub)


def _value(text: str) -> Number:
    return tokens(text)[-1].value * (-1 if text.startswith("-") else 1)


def _statement(
    match: re.Match[str], operands: tuple[Number, Number], result: Number, function: Callable[[Number, Number], Number]
) -> Iterator[Statement]:
    try:
        right = function(*operands)
    except UnreadableError:
        return
    verdict = RIGHT if result == right else WRONG
    if verdict == WRONG and (_is_rounding(match[0], result, right) or is_qualified(match.string, match.start(), match.end())):
        verdict = UNCHECKED
    expected = right if verdict == WRONG else None
    yield Statement(
        match.start(),
        match.end(),
        verdict,
        operands,
        result,
        expected,
        stated=match.span(match.re.groups),
        compute=lambda values: function(values[0], values[1]),
    )


def _is_rounding(text: str, result: Number, right: Number) -> bool:
    """Return whether a result differs from the right one by less than one unit of its last written place."""
    places = len(text.rpartition(".")[2]) if re.search(r"\.\d+$", text) else 0
    return distance(result, right) < Fraction(1, 10**places)
