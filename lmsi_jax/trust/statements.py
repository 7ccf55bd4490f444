"""Find the arithmetic statements of a text, and recompute each at the precision at which it is written."""

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from lmsi_jax.trust.expressions import OPERANDS, Expression, UnreadableError, distance, read
from lmsi_jax.trust.mismatch import RIGHT, UNCHECKED, WRONG, Mismatch, State
from lmsi_jax.trust.tokens import EQUAL_WORDS, Number, Token, tokens

Compute = Callable[[Sequence[Number]], Number]


@dataclass(frozen=True)
class Statement:
    """The claim that two expressions are equal, and the verdict on it.

    `operands` are the numbers that it computes with, and `result` is the number that it states (None when it states none).
    `expected` is the right value of a wrong statement.
    """

    start: int  # position in the text
    end: int
    verdict: str
    operands: tuple[Number, ...] = ()
    result: Number | None = None
    expected: Number | None = None
    is_mark: bool = False  # a calculator mark, "<<48/2=24>>"
    is_running: bool = False  # the first operand is the last result
    units_differ: bool = False  # quantities of one unit are added, and the result has another unit
    is_part: bool = False  # part of a larger statement, such as the tens of a sum
    stated: tuple[int, int] | None = None  # position of the result in the text
    compute: Compute | None = field(default=None, compare=False, repr=False)  # the result for other operands


_MARK = re.compile(r"<<([^<>\n]{1,200})>>")
_LINE_AT_EQUALS = re.compile(r"\n(?=\s*(?:=|\u2248))|(?<==)\n")
# Words between "=" or "is" and the result.
_FILLER_WORDS = (
    "the total of exactly only just us me him her them you it with to equal "
    "about approximately approx around roughly nearly almost"
)
_ROUNDING = Fraction(1, 10**20)  # of irrational roots, which are computed to thirty places
_FILLERS = frozenset(_FILLER_WORDS.split())


def statements(text: str) -> list[Statement]:
    """Return the arithmetic statements of a text in order, each with its verdict.

    A statement is RIGHT if its two sides are equal at the precision at which the result is written, under one of the usual
    readings of its notation. It is WRONG only if every usual reading fails, and nothing around it suggests another meaning;
    otherwise it is UNCHECKED.
    """
    state, found = State({}, set()), list[Statement]()
    prose = text
    if "<<" in text:
        for mark in _MARK.finditer(text):
            found += [replace(each, is_mark=True) for each in _in_prose(mark[1], state, mark.start(1))]
        prose = _MARK.sub(lambda mark: " " * len(mark[0]), text)
    found += _in_prose(prose, state, 0)
    return sorted(found, key=lambda each: each.end)


def _in_prose(text: str, state: State, offset: int) -> Iterator[Statement]:
    items = tokens(_LINE_AT_EQUALS.sub(" ", text))
    begin = 0
    for at, item in enumerate((*items, Token("break", len(text), len(text), ""))):
        if item.kind in ("break", "line"):
            equals = [k for k in range(begin + 1, at) if _is_equals(items, k, at)]
            if equals:
                for each in _chain(text, items, begin, equals, at, state):
                    yield _moved(each, offset) if offset else each
            begin = at + 1


def _moved(statement: Statement, offset: int) -> Statement:
    stated = None if statement.stated is None else (statement.stated[0] + offset, statement.stated[1] + offset)
    return replace(statement, start=statement.start + offset, end=statement.end + offset, stated=stated)


def _is_equals(items: Sequence[Token], at: int, stop: int) -> bool:
    token = items[at]
    if token.kind in ("=", "about"):
        return True
    if token.kind != "word" or token.text not in EQUAL_WORDS or items[at - 1].kind not in ("number", ")", "%", "word", "unit"):
        return False
    at = _after_fillers(items, at + 1, stop)
    return at < stop and items[at].kind in ("number", "$", "-", "frac")


def _after_fillers(items: Sequence[Token], at: int, stop: int) -> int:
    """Return the position after words such as "exactly" and "a total of"."""
    while at < stop and (
        items[at].text in _FILLERS or (items[at].text == "a" and items[at + 1 : at + 2] and items[at + 1].text == "total")
    ):
        at += 1
    return at


def _chain(
    text: str, items: Sequence[Token], begin: int, equals: Sequence[int], stop: int, state: State
) -> Iterator[Statement]:
    """Yield the statements of "a = b = c", one for each equality sign."""
    bounds = [begin - 1, *equals, stop]
    kinds = [items[at].kind for at in equals]
    stated: Number | None = None
    for number, at in enumerate(equals):
        side = _Equation(
            items,
            bounds[number] + 1,
            at,
            bounds[number + 2],
            follows=number > 0 and kinds[number - 1 : number + 1] == ["=", "="],
        )
        statement = side.statement(text, state)
        if statement is not None:
            stated = statement.result if statement.result is not None else stated
            yield statement
    name, before = items[equals[0] - 1], items[equals[0] - 2] if equals[0] - 1 > begin else None
    if len(name.text) == 1 and name.text.isupper() and (before is None or before.kind == "word") and stated is not None:
        state.names[name.text] = stated


@dataclass
class _Equation:
    """One equality sign at token `at`, with the tokens from `begin` on its left and those before `stop` on its right."""

    items: Sequence[Token]
    begin: int
    at: int
    stop: int
    follows: bool  # both this sign and the one before it are "=", as in "a = b = c"

    def statement(self, text: str, state: State) -> Statement | None:
        """Return the statement, or None when neither side calculates anything."""
        left_start, right_start = _run_start(self.items, self.begin, self.at, state.names), self._right_start()
        try:
            left = read(self.items, left_start, self.at, state.names)
            if left.next != self.at:
                raise UnreadableError
            right = read(self.items, right_start, self.stop, state.names)
        except UnreadableError:
            return self._unread()
        if left.is_literal and right.is_literal:
            return None
        literal = left if left.is_literal else right
        result = literal.stated if literal.is_literal else None
        calculated, start, stop = (right, right_start, right.next) if left.is_literal else (left, left_start, self.at)
        operands = tuple(calculated.operands)
        made = Statement(
            left.start,
            right.end,
            RIGHT,
            operands,
            result,
            units_differ=_units_differ(left, right),
            stated=(literal.literals[0].start, literal.literals[0].end) if literal.is_literal else None,
            compute=functools.partial(_recompute, self.items[start:stop], state.names, operands),
        )
        is_rounded = left.is_rounded or right.is_rounded
        if left.value == right.value or (is_rounded and distance(left.value, right.value) < _ROUNDING):
            return made
        if literal.is_literal and distance(left.value, right.value) < literal.precision and literal.precision != 1:
            state.rounded.add(literal.value)
            return made
        if self._is_no_claim(left, left_start):
            return None
        verdict = Mismatch(self.items, self.begin, self.at, self.stop, left, right, left_start, right_start).verdict(
            text, state
        )
        if verdict == WRONG and result is not None:
            return replace(made, verdict=WRONG, expected=right.value if left.is_literal else left.value)
        return replace(made, verdict=verdict)

    def _is_no_claim(self, left: Expression, start: int) -> bool:
        """Return whether the left side is a number that names or describes something: "Day 1 = 5 + 3", "3/4 full is 6"."""
        in_words, after_word = self.items[self.at].kind == "word", self.items[self.at - 1].kind == "word"
        if self.at - start == 1 and after_word:
            return True  # a letter that gets a value
        if left.is_literal and not self.follows and start > 0 and self.items[start - 1].kind not in ("break", "line"):
            return True
        return (left.is_literal and (in_words or after_word)) or (in_words and after_word and left.operators == ["/"])

    def _right_start(self) -> int:
        return _after_fillers(self.items, self.at + 1, self.stop)

    def _unread(self) -> Statement | None:
        """Return an unchecked statement when the side before the sign, or the one after it, calculates something."""
        if self.items[self.at].kind == "word":
            return None  # "The cost is 5 + 3"
        calculates = any(self.items[k].kind in "+-*/^" for k in range(self.begin, self.stop) if k != self.at)
        last = self.items[min(self.at + 1, self.stop - 1)]
        return Statement(self.items[self.begin].start, last.end, UNCHECKED) if calculates else None


def _recompute(
    items: Sequence[Token], names: Mapping[str, Number], operands: Sequence[Number], values: Sequence[Number]
) -> Number:
    """Return the value of an expression with `values` in place of its `operands`, which are numbers with their signs.

    Raises UnreadableError when the operands are not single numbers of the text, such as mixed numbers and named values.
    """
    numbers = [at for at, item in enumerate(items) if item.kind == "number"]
    if len(numbers) != len(values):
        raise UnreadableError
    changed = list(items)
    for at, operand, value in zip(numbers, operands, values, strict=True):
        if abs(operand) != items[at].value:
            raise UnreadableError
        changed[at] = items[at]._replace(value=value if operand == items[at].value else -value)
    return read(changed, 0, len(changed), names).value


def _units_differ(left: Expression, right: Expression) -> bool:
    """Return whether a sum of quantities that all have one unit has a result with another unit, as "8 pears" of apples."""
    units = set(left.units)
    is_sum = bool(left.operators) and set(left.operators) <= {"+", "-"}
    return (
        is_sum
        and len(units) == 1
        and len(left.units) == len(left.literals)
        and bool(right.units)
        and not units & set(right.units)
    )


def _run_start(items: Sequence[Token], begin: int, stop: int, names: Collection[str]) -> int:
    """Return where the expression that ends before token `stop` begins: after a word or an open parenthesis."""
    depth = 0
    for at in range(stop - 1, begin - 1, -1):
        kind = items[at].kind
        if kind == ")":
            depth += 1
        elif kind == "(":
            if not depth:
                return at + 1
            depth -= 1
        elif kind == "opaque":
            return at
        elif kind == "word" and not depth and at + 1 < stop:
            following = items[at + 1]
            if following.kind in OPERANDS or following.text in names:
                return at + 1
    return begin
