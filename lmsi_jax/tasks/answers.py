"""Typed answers: extraction from a model's text, and one canonical form for all ways of writing an answer.

Where a text is ambiguous it abstains: a missing vote costs less than a wrong one. `VERSION` is stored with votes and
scores: a change of these rules changes numbers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

VERSION = 1

_NEXT_QUESTION = re.compile(r"\n\s*(?:Q:|Question:)")
# What stands before an answer, best first; of the best kind that occurs, the last place that can be read counts.
_MARKERS = (
    re.compile(r"\banswer\s+is\b", re.IGNORECASE),
    re.compile(r"####"),
    re.compile(r"\\boxed\b"),
    re.compile(r"^\W*(?:final\s+)?answer\s*:", re.IGNORECASE | re.MULTILINE),
)
_LEAD = " \t\n:*_`$[({"  # decoration between a marker and an answer

_FRACTION = r"\\[dt]?frac\s*(?:\{\s*(?P<top>-?\d+)\s*\}\s*\{\s*(?P<bottom>\d+)\s*\}|(?P<top1>\d)(?P<bottom1>\d))"
_PLAIN = r"(?P<digits>\d{1,3}(?: \d{3})+(?!\d)|\d[\d,]*\d|\d)?(?P<decimals>\.\d+)?(?P<power>[eE][+-]?\d{1,2}(?!\w))?"
_NUMBER = re.compile(
    rf"(?P<sign>[-\u2212]\s?)?(?:[$\u20ac\u00a3]\s?)?(?P<minus>[-\u2212])?"
    rf"(?:(?P<mixed>\d+)\s*(?=\\[dt]?frac)|(?P<units>\d+)\s+(?=\d+/\d))?(?:{_FRACTION}|(?=[\d.]){_PLAIN}(?:\s?/\s?(?P<over>\d+))?)"
)
_AFTER = re.compile(r"\s?[/^]|,\d|\.\d")  # the number goes on in a way that is not read here: a date, a power
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})*,\d{3}|\d+|\d{1,3}(?: \d{3})+")
_MOST_DIGITS = 50

_CHOICES = (
    re.compile(r"\(([A-Za-z])\)"),
    re.compile(r"\b(?:option|choice)\s+([A-Za-z])\b", re.IGNORECASE),
    re.compile(r"^\W*([A-Za-z])(?=[).:]|\W*$)"),
    re.compile(r"(?<![\w'])(?!I\b|A [a-z])([A-Z])(?![\w'])"),
)
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


def own_text(text: str) -> str:
    """`text` without a next question that the model made up and went on with."""
    return _NEXT_QUESTION.split(text, maxsplit=1)[0]


def extract(text: str, answer_type: str, finish: str = "stop") -> Answer | Abstention:
    """The answer after the last "answer is" of `text` (or "####", "\\boxed", "Answer:") that can be read.

    `finish` is "length" for a path that was cut at its longest: without an answer, or with one that the cut may have
    shortened, it is `truncated`.
    """
    text = own_text(text)
    if not text.strip():
        return Abstention("empty")
    for marker in _MARKERS:
        places = [match.end() for match in marker.finditer(text)][-20:]
        for place in reversed(places):
            said = text[place:].lstrip(_LEAD)
            value = canonical(said.split("\n", 1)[0], answer_type)
            if value is not None:
                cut = finish == "length" and not re.search(r"[\s.]", said)
                return Abstention("truncated") if cut else Answer(value)
        if places:
            return Abstention("truncated" if finish == "length" and not said else f"no_{answer_type}")
    return Abstention("truncated" if finish == "length" else "no_answer_phrase")


def canonical(said: str, answer_type: str) -> str | None:
    """One form for all ways of writing an answer ("10,800" and "$10800.00" are "10800"); None when there is none."""
    if answer_type == "number":
        return _number(said)
    if answer_type == "choice":
        match = next(filter(None, (pattern.search(said) for pattern in _CHOICES)), None)
        return None if match is None else match[1].upper()
    if answer_type == "yes_no":
        match = _YES_NO.search(said)
        return None if match is None else match[1].lower()
    words = _ARTICLES.sub(" ", re.sub(r"[^\w\s.%/-]", " ", said.lower()))
    return " ".join(words.split()).strip(" .") or None


def _number(said: str) -> str | None:
    sentence = re.split(r"\.\s|\n", said.replace("\\$", "$").replace("\\!", "").replace("{,}", ","), maxsplit=1)[0]
    result = sentence.rpartition("=")[2]  # of "10 - 3 = 7" the 7
    match = _NUMBER.search(result)
    if match is None or _AFTER.match(result, match.end()):
        return None
    value = _value(match)
    if value is None:
        return None
    return _plain(-value if match["sign"] or match["minus"] else value)


def _value(match: re.Match[str]) -> Fraction | None:
    top, bottom = match["top"] or match["top1"], match["bottom"] or match["bottom1"]
    if len(match[0]) > _MOST_DIGITS:
        return None
    whole = Fraction(match["mixed"] or match["units"] or 0)
    if top:
        return whole + Fraction(int(top), int(bottom)) if int(bottom) else None
    digits = match["digits"] or "0"
    if not _THOUSANDS.fullmatch(digits) or not (match["digits"] or match["decimals"]):
        return None
    value = Fraction(re.sub("[, ]", "", digits) + (match["decimals"] or "") + (match["power"] or ""))
    if match["over"]:
        if not int(match["over"]):
            return None
        value /= int(match["over"])
    return whole + value


def _plain(value: Fraction) -> str:
    """A whole number, else a decimal where it ends within nine places, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, 10):
        if (value * 10**places).denominator == 1:
            sign, digits = "-" if value < 0 else "", str(abs(int(value * 10**places))).rjust(places + 1, "0")
            return f"{sign}{digits[:-places]}.{digits[-places:]}"
    return f"{value.numerator}/{value.denominator}"
