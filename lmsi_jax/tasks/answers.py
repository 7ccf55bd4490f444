"""Typed answers: extraction from a model's text, and one canonical form for all ways of writing an answer.

`VERSION` is stored with votes and scores: a change of these rules changes numbers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

VERSION = 1

_NEXT_QUESTION = re.compile(r"\n\s*(?:Q:|Question:)")
_PHRASE = re.compile(r"\banswer\s+is\b:?", re.IGNORECASE)
_NUMBER = re.compile(
    r"\\d?frac\{(?P<top>-?\d+)\}\{(?P<bottom>\d+)\}"
    r"|(?P<sign>[-\u2212])?\s?[$\u20ac\u00a3]?\s?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?P<decimals>\.\d+)?(?:\s?/\s?(?P<over>\d+))?"
    r"|(?P<bare_sign>[-\u2212])?(?P<bare>\.\d+)"
)
_CHOICE = re.compile(r"\(([A-Za-z])\)|(?<![A-Za-z'])([A-Z])(?![A-Za-z'])|^\W*([a-z])\W*$")
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True)
class Answer:
    """What a path says, in canonical form: equal strings are one vote."""

    value: str


@dataclass(frozen=True)
class Abstention:
    """Why a path has no answer: `empty`, `truncated`, `no_answer_phrase`, `no_number`, `no_choice`, `no_yes_no`, `no_text`."""

    reason: str


def extract(text: str, answer_type: str, finish: str = "stop") -> Answer | Abstention:
    """The answer after the last "answer is" of `text`; text that runs on into a next question is cut off first.

    `finish` is "length" for a path that was cut at its longest: without an answer it is then `truncated`.
    """
    text = _NEXT_QUESTION.split(text, maxsplit=1)[0]
    if not text.strip():
        return Abstention("empty")
    phrases = list(_PHRASE.finditer(text))
    if not phrases:
        return Abstention("truncated" if finish == "length" else "no_answer_phrase")
    said = text[phrases[-1].end() :].split("\n", 1)[0]
    value = canonical(said, answer_type)
    if value is None:
        return Abstention("truncated" if finish == "length" and not said.strip() else f"no_{answer_type}")
    return Answer(value)


def canonical(said: str, answer_type: str) -> str | None:
    """One form for all ways of writing an answer ("10,800" and "$10800.00" are "10800"); None when there is none."""
    if answer_type == "number":
        match = _NUMBER.search(said.replace("\\$", "$").replace("\\!", ""))
        return None if match is None else _number(match)
    if answer_type == "choice":
        match = _CHOICE.search(said)
        return None if match is None else next(filter(None, match.groups())).upper()
    if answer_type == "yes_no":
        match = _YES_NO.search(said)
        return None if match is None else match[1].lower()
    words = _ARTICLES.sub(" ", re.sub(r"[^\w\s.%/-]", " ", said.lower()))
    return " ".join(words.split()).strip(" .") or None


def _number(match: re.Match[str]) -> str | None:
    if match["top"]:
        top, bottom = int(match["top"]), int(match["bottom"])
        return _plain(Fraction(top, bottom)) if bottom else None
    digits = match["bare"] or match["whole"].replace(",", "") + (match["decimals"] or "")
    value = Fraction(digits if not digits.startswith(".") else f"0{digits}")
    if match["over"]:
        if int(match["over"]) == 0:
            return None
        value /= int(match["over"])
    return _plain(-value if match["sign"] or match["bare_sign"] else value)


def _plain(value: Fraction) -> str:
    """A whole number, else a decimal where it ends within nine places, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, 10):
        if (value * 10**places).denominator == 1:
            sign, digits = "-" if value < 0 else "", str(abs(int(value * 10**places))).rjust(places + 1, "0")
            return f"{sign}{digits[:-places]}.{digits[-places:]}"
    return f"{value.numerator}/{value.denominator}"
