"""Judge two sides of an equation that are not equal as they are read first: an error, another reading, or unsure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lmsi_jax.trust.expressions import Expression, Reading, UnreadableError, distance, read
from lmsi_jax.trust.tokens import Number, Token

RIGHT, WRONG, UNCHECKED = "right", "wrong", "unchecked"

# Words before an expression that it depends on: "half of 5 + 3", "the average of 5 + 7", "3 less than 8 - 2".
_GLUE_WORDS = (
    "of by than per half twice thrice double triple quarter third fourth to over under above below minus plus times less more "
    "another additional extra every each average mean median ratio remainder mod modulo log ln sin cos tan root square squared "
    "cube cubed power exponent base sum product difference quotient gcd lcm gcf choose factorial max min floor ceil between "
    "divided multiplied rounded digit digits if suppose assume unless would page exercise question problem step day week room "
    "chapter example part number figure table option case team flight bus line version route highway grade level section item "
    "lesson call phone choice train gate seat apartment floor year open"
)
_GLUE = frozenset(_GLUE_WORDS.split())
# Words that make the sentence about something else than plain equality.
_HEDGES = re.compile(
    r"\b(?:remainder|mod(?:ulo)?|base|about|approximately|approx|around|roughly|nearly|nearest|almost|rounded|rounding|rounds?\s+"
    r"(?:up|down|to|off)|estimate[ds]?|at\s+least|at\s+most|log|ln|wrong(?:ly)?|false|incorrect(?:ly)?|mistake\w*|not|clock|binary"
    r"|octal|hex\w*|answered|claim\w*|thinks?|thought|guess\w*|world|calendar|maybe|perhaps|could\s+be|might|give\s+or\s+take|versus|vs|score|won)\b|\d\s?[ap]\.?m\b|\bR\s?\d|n't\b|[\u2717\u2718\u274c]",
    re.IGNORECASE,
)
_ASSUMED = re.compile(r"\b(?:if|suppose|assume|unless)\s+$", re.IGNORECASE)
_GOES_ON = re.compile(r"\s+(?:more|less|fewer|times|percent)\b|\s+(?:and|or)\s+\d+/\d")  # "is 2 more than 6"
# What follows a statement that its writer withdraws.
_WITHDRAWN = re.compile(
    r"[\s.,;:?!\u2013\u2014-]*(?:\?|right\?|(?:(?:but|hmm+|oh|um|no)\W+)?(?:wait|no(?=[,.!;:])|nope|oops|correction|sorry|actually|hold\son"
    r"|scratch|let\sme\s(?:re\w+|check|fix|correct)|that(?:'s|\u2019s|\sis)\s(?:not|wrong|incorrect))\b)",
    re.IGNORECASE,
)
_ALTERNATIVES = (  # readings under which a statement that seems wrong is right
    Reading(percent=False),
    Reading(fractions_first=True),
    Reading(fractions_first=True, percent=False),
)
_SLOPPY = (Reading(left_to_right=True), Reading(long_denominators=True))  # readings that notation does not allow
_DIMENSIONS = {  # unit -> (what it measures, the unit that it is another name of)
    name: (dimension, names.split()[0])
    for dimension, units in {
        "time": ("second sec s", "minute min mins", "hour hr hrs h", "day", "week", "month", "year yr", "decade"),
        "length": ("inch inche", "foot feet ft", "yard yd", "mile mi", "mm", "cm", "m meter metre", "km kilometer"),
        "weight": ("g gram", "kg kilogram", "pound lb lbs", "ounce oz", "ton"),
        "volume": ("ml", "liter litre l", "gallon", "quart", "pint", "cup"),
        "money": ("$ dollar buck usd", "cent c penny", "dime", "nickel", "quarter"),
    }.items()
    for names in units
    for name in names.split()
}
_CONVERSIONS = frozenset((3, 4, 7, 12, 16, 24, 30, 36, 52, 60, 100, 365, 1000, 1440, 3600, 5280, 10**6))
_MOST_ROUNDED = 20  # rounded operands whose effect is computed; with more of them a difference proves nothing
_NEAR = 200  # characters before and after a statement that may qualify it
_FLOAT_ERROR = Fraction(1, 10**9)  # the relative error of floating-point arithmetic that people paste


@dataclass
class State:
    """What the text so far defined: the letters with a value, and the results that it rounded."""

    names: dict[str, Number]
    rounded: set[Number]


@dataclass
class Mismatch:
    """Two sides that are not equal, as they are read first."""

    items: Sequence[Token]
    begin: int  # the first token of the left side, which may begin with words
    at: int  # the token of the equality sign
    stop: int  # the token after the right side
    left: Expression
    right: Expression
    left_start: int
    right_start: int

    def verdict(self, text: str, state: State) -> str:
        """Return RIGHT if another usual reading makes them equal, WRONG if none does, and UNCHECKED when that is unsure."""
        if any(self._agree(reading, state.names) for reading in _ALTERNATIVES):
            return RIGHT
        if self.right.operators and self.right.literals and self.right.literals[0].value == self.left.value:
            return RIGHT  # a running calculation, "5 + 3 = 8 + 2 = 10"
        if any(self._agree(reading, state.names) for reading in _SLOPPY) or self._is_unsure(text, state):
            return UNCHECKED
        return WRONG

    def _agree(self, reading: Reading, names: Mapping[str, Number]) -> bool:
        try:
            left = read(self.items, self.left_start, self.at, names, reading)
            right = read(self.items, self.right_start, self.stop, names, reading)
        except UnreadableError:
            return False
        difference = distance(left.value, right.value)
        if right.is_literal and right.literals[0].places:
            return difference < Fraction(1, 10 ** right.literals[0].places) / (
                100 if "%" in right.units and reading.percent else 1
            )
        return not difference

    def _is_unsure(self, text: str, state: State) -> bool:
        left, right = self.left, self.right
        return (
            self.items[self.at].kind == "about"
            or left.is_ambiguous
            or right.is_ambiguous
            or "each" in left.units
            or not {"half", "halve", "third", "quarter"}.isdisjoint((*left.units, *right.units))
            or "of" in right.operators
            or (left.operators == ["/", "/"] and len(left.units) > 1)  # "150 minutes / 5 minutes/100 meters"
            or (self.items[self.at].kind == "word" and not right.is_literal)
            or self._may_have_unknowns()
            or self._may_be_rounded()
            or self._is_glued()
            or self._continues()
            or self._may_convert()
            or self._is_rounded(state)
            or is_qualified(text, left.start, right.end)
        )

    def _may_be_rounded(self) -> bool:
        """Return whether the result may be rounded to an integer, be one of two roots, or come from a calculator."""
        left, right = self.left, self.right
        literal = left if left.is_literal else right
        difference = distance(left.value, right.value)
        finest = Fraction(1, 100 if "%" in literal.units else literal.value.denominator)
        if literal.is_literal and not literal.literals[0].places and difference < finest:
            return True
        if left.value == -right.value and ("sqrt" in left.operators or self._is_range()):
            return True
        return difference <= _FLOAT_ERROR * distance(left.value, 0)

    def _may_have_unknowns(self) -> bool:
        """Return whether single letters behind numbers may be unknowns: "2m + 55 = 215", "2m = 160"."""
        for side in (self.left, self.right):
            is_sum = not {"+", "-"}.isdisjoint(side.operators)
            if side.letter_units and is_sum and side.letter_units < len(side.literals):
                return True
        return self.left.is_literal and self.left.letter_units != self.right.letter_units

    def _is_range(self) -> bool:
        """Return whether the left side may be a range, such as "2020-2024"."""
        return self.left.operators == ["-"] and self.items[self.left_start].end == self._second().start and self.left.value < 0

    def _second(self) -> Token:
        return self.items[self.left_start + 1]

    def _is_glued(self) -> bool:
        """Return whether the word or number before the left side may belong to it."""
        at, items = self.left_start - 1, self.items
        if at < 0:
            return False
        if any(items[k].kind in "+-*/^" for k in range(self.begin, self.left_start)):
            return True  # "20 + 10 cards to the 29 + 24 cards = 83"
        before, earlier = items[at], items[at - 1] if at else None
        if before.kind == "word":
            is_list = before.text.lower() == "and" and earlier is not None and earlier.kind in ("number", "%", ")")
            is_call, word = before.end == items[self.left_start].start, before.text.lower()
            return is_call or word in _GLUE or word.removesuffix("s") in _GLUE or is_list and not self._follows_result(at - 1)
        if before.kind == "break":
            is_list = before.text not in ".;:!?|" and earlier is not None and earlier.kind != "word"
            is_cut = earlier is not None and earlier.kind in "+-*/^"
            return is_cut or is_list and not self._follows_result(at - 1)
        if before.kind == "(":
            return earlier is not None and (earlier.kind in "+-*/^" or earlier.kind == "word" and earlier.end == before.start)
        if "-" in before.text:  # the mark of a list, or a sign
            first = self.left.literals[0].value if self.left.literals else 0
            return self.left.value - 2 * first == self.right.value
        return before.kind not in ("line", "=", "about")

    def _follows_result(self, at: int) -> bool:
        """Return whether the number at token `at` is the result of another statement."""
        while at >= 0 and self.items[at].kind not in ("break", "line", "=", "about"):
            at -= 1
        return at >= 0 and self.items[at].kind in ("=", "about")

    def _continues(self) -> bool:
        """Return whether the text after the right side may belong to it: "= 3 hours 20 minutes", "= 2 and 1/2"."""
        items, stop = self.items, self.stop
        after = [items[at] for at in range(self.right.next, min(self.right.next + 4, stop))]
        kinds = [token.kind for token in after]
        if [token.kind for token in items[stop + 1 : stop + 2]] == ["number"] and items[stop].text == ":":
            return True  # a ratio
        if kinds[:1] and kinds[0] in ("number", "opaque", "frac", "sqrt", "^", "!", "unit"):
            return True
        words = [token.text.lower() for token in after]
        if words[:1] == ["and"]:
            return kinds[1:4] == ["number", "/", "number"]
        measured = bool(words) and words[0].rstrip("s") in _DIMENSIONS
        return measured and ("number" in kinds[1:2] or words[1:2] == ["and"] and "number" in kinds[2:3])

    def _may_convert(self) -> bool:
        """Return whether a change of unit, such as hours to minutes, or a mix of units may explain the difference."""
        left, right = self.left, self.right
        measured: dict[str, set[str]] = {}
        for dimension, unit in (_DIMENSIONS[unit] for unit in (*left.units, *right.units) if unit in _DIMENSIONS):
            measured.setdefault(dimension, set()).add(unit)
        if any(len(units) > 1 for units in measured.values()):
            return True  # "2 hours * 30 minutes"
        is_sum = not {"+", "-"}.isdisjoint(left.operators)
        counted = {unit for unit in left.units if unit not in _DIMENSIONS}
        if is_sum and (len(counted) > 1 or left.units.count("%") not in (0, len(left.literals))):
            return True  # "2 adults + 3 children = $31", "$250 - 20% = $200"
        ratio = Fraction(self.left.value) / self.right.value if self.right.value else Fraction(0)
        factors = {ratio, 1 / ratio if ratio else ratio}
        gained = [unit for unit in right.units if unit in _DIMENSIONS and unit not in left.units]
        if not factors.isdisjoint((100, 1000, 10**6, Fraction(18, 5))):
            return True
        if left.operators == ["/"] and left.units and right.units and self.items[self.left_start].end == self._second().start:
            return True  # "1/2 a cup = 4 ounces"
        return bool(gained) and "$" not in gained and not factors.isdisjoint(_CONVERSIONS)

    def _is_rounded(self, state: State) -> bool:
        """Return whether the rounding of operands, such as 0.33 for 1/3, may explain the difference."""
        slack: Number = 0
        difference, tried = distance(self.left.value, self.right.value), 0
        for number, token in enumerate(self.items[self.left_start : self.right.next], self.left_start):
            if token.kind == "number" and (token.value in state.rounded or _repeats(token)):
                slack += self._effect(number, token, state.names)
                tried += 1
                if difference <= slack or tried == _MOST_ROUNDED:
                    return True
        return False

    def _effect(self, at: int, token: Token, names: Mapping[str, Number]) -> Number:
        """Return by how much half a unit of the last place of one number changes the difference of the two sides."""
        shifted = list(self.items)
        shifted[at] = token._replace(value=token.value + Fraction(1, 2 * 10**token.places))
        try:
            left = read(shifted, self.left_start, self.at, names)
            right = read(shifted, self.right_start, self.stop, names)
        except UnreadableError:
            return 0
        return distance(left.value - right.value, self.left.value - self.right.value)


def is_qualified(text: str, start: int, end: int) -> bool:
    """Return whether the text around a statement withdraws, doubts or continues it."""
    if _WITHDRAWN.match(text, end) or _GOES_ON.match(text, end):
        return True
    return (
        _HEDGES.search(_sentence(text, start, end)) is not None or _ASSUMED.search(text, max(start - 12, 0), start) is not None
    )


def _repeats(token: Token) -> bool:
    """Return whether a number looks like a rounded third or sixth, or like pi: "0.33", "16.7", "3.14"."""
    if not token.places:
        return False
    half = Fraction(1, 2 * 10**token.places)
    error = distance(Fraction(token.value * 6), round(token.value * 6))
    return (token.places > 1 and 0 < error <= 6 * half) or token.text in ("3.14", "3.1416", "3.142", "1.41", "1.73")


def _sentence(text: str, start: int, end: int) -> str:
    """Return the sentence around a part of the text, as far as it is near."""
    least, most = max(start - _NEAR, 0), end + _NEAR
    first = max(text.rfind(mark, least, start) for mark in (". ", "\n", "? ", "! ")) + 1
    last = min((place for mark in (". ", "\n") if (place := text.find(mark, end, most)) >= 0), default=most)
    return text[max(first, least) : last]
