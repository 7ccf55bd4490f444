"""The quantities that a question gives: its numbers, and numbers that its words imply."""

import re
from dataclasses import dataclass
from fractions import Fraction

from lmsi_jax.trust.tokens import PARTS, SPELLED, Number, Token, tokens

_IMPLIED = {
    "twice": (2,), "double": (2,), "doubled": (2,), "triple": (3,), "thrice": (3,), "dozen": (12,),
    "couple": (2,), "pair": (2,),
    "both": (2,), "once": (1,), "day": (24, 7, 365), "daily": (24, 7), "week": (7, 52), "weekly": (7, 52), "weekend": (2,),
    "weekday": (5,), "month": (12, 30, 4), "year": (12, 365, 52), "yearly": (12,), "annual": (12,), "hour": (60, 24),
    "minute": (60,), "second": (60,), "foot": (12, 3), "feet": (12, 3), "inch": (12,), "yard": (3,), "pound": (16,),
    "ounce": (16,), "mile": (5280,), "dollar": (100,), "cent": (100,), "quarter": (25, 4), "dime": (10,), "nickel": (5,),
    "score": (20,), "century": (100,), "decade": (10,), "percent": (100,), "square": (4,), "triangle": (3,), "average": (2,),
    "fortnight": (14,), "quadruple": (4,), "meter": (100, 1000), "kilometer": (1000,), "gallon": (4, 16), "leg": (2, 4),
}  # fmt: skip
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_NEGATIVE = re.compile(r"(?<![\w)])[-\u2212]\$?\d|\b(?:negative|minus|below|loss|debt|owes?)\b", re.IGNORECASE)
_END = Token("break", 0, 0, "")


@dataclass(frozen=True)
class Quantities:
    """The numbers of a question, without their signs.

    `written` are those in digits, in order, with repetitions; `implied` follow from its words.
    """

    written: tuple[Number, ...]
    implied: frozenset[Number]

    has_negative: bool = False

    @property
    def known(self) -> frozenset[Number]:
        return self.implied | frozenset(self.written)


def quantities(question: str) -> Quantities:
    """Return the quantities of a question.

    "20%" gives 20 and also implies 0.2, 0.8, 1.2, 80 and 120; "1/4" implies 1/4 and 3/4. Words such as "three", "half",
    "twice" and "week" imply numbers.
    """
    items = tokens(question)
    written = tuple(item.value for item in items if item.kind == "number" and not item.text[0].isalpha())
    implied: set[Number] = {1, 2, 100}
    padded = [*items, _END, _END]
    for item, following, bottom in zip(items, padded[1:], padded[2:], strict=False):
        if item.kind != "number":
            continue
        implied.add(item.value)
        if following.kind == "%":
            share = Fraction(item.value) / 100
            implied |= {share, 1 - share, 1 + share, 100 - item.value, 100 + item.value}
        if following.kind == "/" and bottom.kind == "number" and bottom.value:
            share = Fraction(item.value) / bottom.value
            implied |= {share, 1 - share, bottom.value - item.value}
    for word in _WORD.findall(question.lower()):
        singular = word[:-2] if word.endswith("ches") else word[:-1] if word.endswith("s") else word
        implied.update(_IMPLIED.get(singular, ()))
        if word in SPELLED:
            implied.add(SPELLED[word])
        if word in PARTS:
            implied |= {PARTS[word], Fraction(1, PARTS[word]), 1 - Fraction(1, PARTS[word])}
    return Quantities(written, frozenset(implied), _NEGATIVE.search(question) is not None)
