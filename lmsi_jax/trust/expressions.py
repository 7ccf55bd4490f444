"""Read and evaluate arithmetic expressions exactly, in the ways in which people write them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from lmsi_jax.trust.tokens import EQUAL_WORDS, Number, Token


class UnreadableError(Exception):
    """The text is not an expression that can be evaluated."""


def distance(a: Number, b: Number) -> Number:
    """Return |a - b|."""
    return a - b if a > b else b - a


class Reading(NamedTuple):
    """One way to read an expression whose notation people use in several ways."""

    fractions_first: bool = False  # "12 / 2/3" is 12 / (2/3)
    left_to_right: bool = False  # "20 - 5 / 5" is 3
    long_denominators: bool = False  # "24 / 2 * 3" is 24 / (2 * 3)
    percent: bool = True  # "20%" is 0.2; otherwise it is 20


@dataclass
class Expression:
    """A value, and what its text says about it."""

    value: Number
    start: int  # position in the text
    end: int
    next: int  # the index of the token after it
    literals: list[Token] = field(default_factory=list)
    operands: list[Number] = field(default_factory=list)  # the numbers with their signs, and named values
    units: list[str] = field(default_factory=list)
    operators: list[str] = field(default_factory=list)
    is_ambiguous: bool = False  # it has notation that people read in several ways
    letter_units: int = 0  # numbers with a single letter behind them, which may be a unit or an unknown
    is_rounded: bool = False  # the value is rounded to about thirty places, since it is irrational

    @property
    def is_literal(self) -> bool:
        """Whether the expression is one number and nothing else."""
        return len(self.literals) == 1 and not self.operators

    @property
    def stated(self) -> Number:
        """The number as it is written: 25 for "25%"."""
        return self.literals[0].value if "%" in self.units else self.value

    @property
    def precision(self) -> Number:
        """The unit of the last written place of a number, such as 1/100 for "2.50" and for "25%"."""
        places = self.literals[0].places + 2 * ("%" in self.units)
        return Fraction(1, 10**places) if places else 1


_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "of": 2}
_UNARY = 3
_MOST_BITS = 2000  # of a value
_MOST_DEPTH = 40
_MOST_UNIT_WORDS = 4
_SCALES = frozenset(("hundred", "thousand", "million", "billion", "trillion", "dozen", "k", "M", "score"))
_COMPOUND_UNITS = {"mph": ("mile", "hour"), "kph": ("km", "hour"), "kmh": ("km", "hour")}
_UNIT_LETTERS = frozenset("mghlLs")
_NO_UNIT = frozenset(("and", "or", "so", "then", "is", "are", "was", "which", "because", "but", "equals", "of", *EQUAL_WORDS))
OPERANDS = frozenset(("number", "(", "$", "frac", "sqrt"))  # kinds of tokens that begin an operand


USUAL = Reading()


def read(tokens: Sequence[Token], at: int, stop: int, names: Mapping[str, Number], reading: Reading = USUAL) -> Expression:
    """Return the longest expression that begins at token `at` and ends before `stop`. Raises UnreadableError.

    `names` has the values of letters that the text defined.
    """
    parser = _Parser(tokens, at, stop, names, reading)
    value = parser.expression(1, 0)
    made = parser.made
    made.value, made.next, made.end = value, parser.at, tokens[parser.at - 1].end
    return made


class _Parser:
    """A precedence-climbing parser, which evaluates as it reads."""

    def __init__(self, tokens: Sequence[Token], at: int, stop: int, names: Mapping[str, Number], reading: Reading):
        self._tokens, self.at, self._stop, self._names, self._reading = tokens, at, stop, names, reading
        if at >= stop:
            raise UnreadableError
        self.made = Expression(0, tokens[at].start, 0, at)

    def _kind(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self._tokens[at].kind if at < self._stop else ""

    def expression(self, level: int, depth: int) -> Number:
        if depth > _MOST_DEPTH:
            raise UnreadableError
        value = self._operand(depth)
        while True:
            kind = self._kind()
            if kind == "(" and self._is_glued():
                kind, binding, skip = "*", 2, 0
                self.made.is_ambiguous |= "/" in self.made.operators
            elif kind in _BINDING:
                binding, skip = _BINDING[kind], 1
            else:
                return value
            if self._reading.left_to_right:
                binding = 1
            if binding < level:
                return value
            self.at += skip
            self.made.operators.append(kind)
            right_level = binding if kind == "/" and self._reading.long_denominators else binding + 1
            value = _apply(kind, value, self.expression(right_level, depth + 1))

    def _is_glued(self) -> bool:
        token, previous = self._tokens[self.at], self._tokens[self.at - 1]
        return token.start == previous.end and token.text != "{"

    def _operand(self, depth: int) -> Number:
        kind = self._kind()
        if kind in ("-", "+"):
            self.at += 1
            count = len(self.made.operands)
            value = self.expression(_UNARY, depth + 1)
            if kind == "-" and len(self.made.operands) == count + 1 and self.made.operands[-1] == value:
                self.made.operands[-1] = -value
            self.made.is_ambiguous |= self._tokens[self.at - 2].kind == "^"  # "-3^2"
            return -value if kind == "-" else value
        value = self._primary(depth)
        if self._kind() == "^":
            self.at += 1
            self.made.operators.append("^")
            exponent = -self._primary(depth) if self._skip("-") else self._primary(depth)
            value = _power(value, exponent)
            self._units()
        return value

    def _skip(self, kind: str) -> bool:
        found = self._kind() == kind
        self.at += found
        return found

    def _primary(self, depth: int) -> Number:
        if depth > _MOST_DEPTH:
            raise UnreadableError
        if self._skip("$"):
            self.made.units.append("$")
        if self._kind() == "-" and self.made.units[-1:] == ["$"]:  # "$-5"
            self.at += 1
            return -self._primary(depth + 1)
        kind, token = self._kind(), self._tokens[min(self.at, self._stop - 1)]
        self.at += 1
        if kind == "number":
            self.made.literals.append(token)
            value = self._fraction_after(token)
            self.made.operands.append(self.made.literals[-1].value)
        elif kind == "(":
            value = self.expression(1, depth + 1)
            if not self._skip(")"):
                raise UnreadableError
        elif kind == "frac":
            value = self._latex_fraction(depth)
        elif kind == "sqrt":
            is_open = self._kind() == "number"
            value, is_exact = _root(self._primary(depth + 1))
            self.made.is_ambiguous |= is_open and self._kind() in ("*", "/", "^")
            self.made.is_rounded |= not is_exact
            self.made.operators.append("sqrt")
        elif kind == "word" and token.text in self._names:
            self.made.operands.append(self._names[token.text])
            return self._names[token.text]
        else:
            raise UnreadableError
        return self._postfix(value)

    def _fraction_after(self, token: Token) -> Number:
        """Read the rest of a mixed number ("2 1/2", "2\\frac{1}{2}") or, where fractions come first, of "1/2"."""
        whole, at, stop = token.value, self.at, self._stop
        items = self._tokens
        if token.places == 0 and at + 2 < stop and _is_tight(items, at) and items[at].value < items[at + 2].value:
            self.at += 3
            value = whole + Fraction(items[at].value, items[at + 2].value)
            self.made.literals[-1] = token._replace(value=value, end=items[at + 2].end)
            return self.made.literals[-1].value
        if self._reading.fractions_first and at + 1 < stop and _is_tight(items, at - 1):
            self.at += 2
            return Fraction(whole, items[at + 1].value)
        return whole

    def _latex_fraction(self, depth: int) -> Number:
        self.made.operators.append("/")
        token = self._tokens[min(self.at, self._stop - 1)]
        if token.kind == "number" and len(token.text) == 2:  # \frac12
            self.at += 1
            return _apply("/", int(token.text[0]), int(token.text[1]))
        top = self._primary(depth + 1)
        return _apply("/", top, self._primary(depth + 1))

    def _postfix(self, value: Number) -> Number:
        if self._skip("%"):
            self.made.units.append("%")
            value = Fraction(value) / 100 if self._reading.percent else value
        if self._kind() == "!":
            after = self._tokens[self.at + 1].kind if self.at + 1 < len(self._tokens) else ""
            if after not in ("+", "-", "*", "/", "=", ")"):
                self.made.is_ambiguous = True  # an exclamation mark
            else:
                if not isinstance(value, int) or not 0 <= value <= 100:
                    raise UnreadableError
                value = math.factorial(value)
                self.made.operators.append("!")
            self.at += 1
        self._units()
        return value

    def _is_unknown(self, at: int) -> bool:
        """Return whether the word at token `at` is a letter that stands for a number, and not a unit or an article."""
        token = self._tokens[at + (self._tokens[at].kind == "/" and at + 1 < self._stop)]
        if token.kind != "word" or len(token.text) > 1 or token.text in _UNIT_LETTERS:
            return False
        return token.text not in ("a", "A", "I") or token.start == self._tokens[at - 1].end

    def _units(self) -> None:
        """Read the unit words after a number: "apples", "miles per hour", "km/h", "(in dollars)"."""
        if self._kind() == "(" and self._kind(1) == "word":
            if self._is_glued():
                raise UnreadableError  # "3(number of days)"
            ahead = 1
            while self._kind(ahead) == "word":
                ahead += 1
            self.at += ahead + 1 if self._kind(ahead) == ")" else 0
        start, at = self.at, self.at
        if self._kind() == "word" and self._is_glued() and self._tokens[at - 1].kind == ")":
            raise UnreadableError  # "(1/10)workers"
        while at < self._stop and at - start < 2 * _MOST_UNIT_WORDS:
            token = self._tokens[at]
            if self._is_unknown(at):
                raise UnreadableError  # "2x", "24/Y"
            if token.kind == "unit" or (token.kind == "word" and token.text.lower() not in _NO_UNIT):
                at += 1
            elif token.kind == "^" and at > start and at + 1 < self._stop and self._tokens[at + 1].value in (2, 3):
                at += 2  # "m^2"
            elif token.kind == "/" and at + 1 < self._stop and self._tokens[at + 1].kind in ("word", "unit"):
                at += 2
            else:
                break
        if at > start and not (at < self._stop and self._tokens[at].kind in OPERANDS):
            self.at = at
            words = [token.text for token in self._tokens[start:at]]
            self.made.units += _unit_names(words)
            self.made.letter_units += len(words[0]) == 1 and words[0].isalpha()
            self.made.is_ambiguous |= not _SCALES.isdisjoint(words)


def _unit_names(words: Sequence[str]) -> list[str]:
    """Return the units among the words after a number: "apple" of "red apples", and "mile" and "hour" of "miles per hour"."""
    phrases: list[str] = [""]
    for word in words:
        if word in ("/", "per", "a", "an"):
            phrases.append("")
        elif word.isalpha() or not word.isascii():
            phrases[-1] = word.lower()
    names = [name[:-1] if name.endswith("s") and len(name) > 3 else name for name in phrases if name]
    return [unit for name in names for unit in _COMPOUND_UNITS.get(name, (name,))]


def _is_tight(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a fraction of integers without spaces, such as "1/2", begins at token `at`."""
    top, slash, bottom = tokens[at : at + 3]
    return (
        slash.kind == "/"
        and top.kind == bottom.kind == "number"
        and top.end == slash.start
        and slash.end == bottom.start
        and isinstance(top.value, int)
        and isinstance(bottom.value, int)
        and bottom.value > 0
    )


def _apply(operator: str, left: Number, right: Number) -> Number:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "/":
        if not right:
            raise UnreadableError
        result = Fraction(left) / right
        return result.numerator if result.denominator == 1 else result
    if _bits(left) + _bits(right) > _MOST_BITS:
        raise UnreadableError
    return left * right


def _power(base: Number, exponent: Number) -> Number:
    if exponent != int(exponent) or distance(exponent, 0) * max(_bits(base), 1) > _MOST_BITS or (not base and exponent < 0):
        raise UnreadableError
    return Fraction(base) ** int(exponent) if exponent < 0 else base ** int(exponent)


def _bits(value: Number) -> int:
    return max(abs(value.numerator).bit_length(), value.denominator.bit_length())


def _root(value: Number) -> tuple[Number, bool]:
    """Return the square root, rounded to about thirty places when it is irrational, and whether it is exact."""
    value = Fraction(value)
    if value < 0:
        raise UnreadableError
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root == value:
        return root, True
    return Fraction(math.isqrt(value.numerator * value.denominator * 10**60), value.denominator * 10**30), False
