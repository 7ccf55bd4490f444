"""Read the number that a sentence gives as its answer, and write it in one form."""

import re
from fractions import Fraction

_SPACES = re.compile(r"[\u00a0\u2009\u202f]|\\[ ,;:]|(?<=\d)\\?[!~](?=\d)|~")  # typographic spaces
_SYMBOLS = (
    ("\\$", "$"), ("\\%", "%"), ("\\!", ""), ("{,}", ","), ("\\left", ""), ("\\right", ""), ("\\times", "*"), ("\\cdot", "*"),
    ("\\approx", " "), ("\u2212", "-"), ("\u00d7", "*"), ("\u2248", " "), ("**", ""), ("`", ""),
)  # fmt: skip
_WORDING = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boldsymbol)\s*\{([^{}]*)\}")

_CURRENCY = r"(?:\b(?:USD?|EUR|GBP|Rs\.?|A|C)\s?)?(?:[$\u20ac\u00a3\u20b9\u00a5]\s?)?"
_FRACTION = r"\\[dt]?frac\s*(?:\{\s*(?P<top>-?\d+)\s*\}\s*\{\s*(?P<bottom>\d+)\s*\}|(?P<top1>\d)(?P<bottom1>\d))"
_PLAIN = r"(?P<digits>\d{1,3}(?: \d{3})+(?!\d)|\d[\d,]*\d|\d)?(?P<decimals>\.\d+)?(?P<power>[eE][+-]?\d{1,2}(?!\w))?"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)}}\]])[-\u2013]\s?|\b(?:negative|minus)\s)?{_CURRENCY}(?P<minus>-)?"
    rf"(?:(?P<mixed>\d+)\s*(?=\\[dt]?frac)|(?P<units>\d+)(?:\s+|\s?and\s|-)(?=\d+/\d))?"
    rf"(?:{_FRACTION}|(?=[\d.]){_PLAIN}(?:\s?/\s?(?P<over>\d+))?)"
)
_TEN = re.compile(r"\s?\*\s?10\s?\^\s?\{?\s?([+-]?\d{1,2})\s?\}?")
# The number continues in a way that this module does not read.
_GOES_ON = re.compile(
    "|".join(
        (
            r"\s?(?:/\s?[\d(]|\^(?!\s?\{?\\circ)|[\u00b2\u00b3]|!\s*$|!\s*[*/+-]|squared|cubed)",  # date, power
            r"[,.:'_]\d",  # time
            r"\s?(?:[-+*x\u2013\u2014\u00f7\u00b1]|to|or|and|in|\\pm)\s?[$(]?\d|\s?\)\s?[-+*x/]",  # range, sum
            r"\s?[+*]\s?[a-z(]",
            r"[^.(]{0,30}?\b(?:or|and)\b[^.(]{0,30}?\d|,\s\d+(?!\s+of\b)(?=\s|\W*$|,)|,\s\w\s?=",  # a second quantity
            r"\s(?:(?:hour|minute|foot|feet|ft|pound|lb|year|month|week|day|dollar|yard|meter)s?)\b,?\s(?:and\s)?\d",
            r"(?-i:[A-Za-z](?![\w'])(?<![ghmsLl]))|st\b|nd\b|rd\b|th\b",  # an unknown, an ordinal
            r"\s?\\(?:pi|sqrt|log|ln|sin|cos|tan|cdot|e\b)|\s?[\u03c0\u221a]",  # an irrational factor
            r"\s?%?\s(?:of\s[$]?\d|times\s+[$]?\d|(?:more|less|fewer)\s+than\b|or\s+(?:more|less|fewer)\b)|\sremainder\b",
            r"\s(?:hundred|dozen|half|halves|third|fourth|quarter|fifth|sixth|eighth|tenth)s?\b",
            r"[^.]{0,20}?\b(?:wait|I\smean|actually|corrected)\b|\s?(?:am|pm|a\.m\.|p\.m\.)\b|\s?o'clock",
        )
    ),
    re.IGNORECASE,
)
_STANDS_APART = re.compile(r"(?:[A-Za-z0-9_^{]|\\sqrt\s?\{?|\\(?:pi|pm|log|ln)\s?|[\u03c0\u221a]|\u00b1\s?|\+/-\s?)$")
_SCALE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "k": 10**3}
_SCALED = re.compile(r"(?:\s(thousand|million|billion|trillion)s?\b|(k)\b)", re.IGNORECASE)
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_COMPOUND = (
    r"of|hundred|thousand|million|billion|dozen|and|or|to|hal(?:f|ves)|(?:third|fourth|quarter|fifth|sixth|seventh|eighth|ninth|"
    r"tenth)s?|point|divided|times|plus|minus|less|more|in|feet|foot"
)
_SPELLED = re.compile(
    rf"\W*(?:(?:about|only|just|exactly|approximately)\s+)?"
    rf"(?>(?P<tens>{'|'.join(_TENS)})(?:[- ](?P<ones>{'|'.join(_UNITS[1:10])}))?|(?P<units>{'|'.join(reversed(_UNITS))}))"
    rf"(?![\w-])(?!\s+(?:{_COMPOUND})\b)(?!.*\b(?:{'|'.join((*_UNITS, *_TENS))})\b)",
    re.IGNORECASE | re.DOTALL,
)
_HALVES = {"\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3", "\u215b": "1/8"}
_NO_ANSWER = re.compile(
    r"\W*(?:(?:not|between|either|neither|none|any|over|under|half|twice|double|triple|at\s+(?:least|most)|up\s+to"
    r"|(?:no\s+)?(?:more|less|fewer|greater)\s+than)\b|[<>\u2264\u2265]|\\[lg]eq?\b)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(
    r"(?<!Rs)[.!?]\s|\.[\"'*)\u201d]|\n|;|\s(?:because|since|if|when|where|but|so|thus|then|therefore)\s", re.IGNORECASE
)
_SUM = re.compile(r"[-+*/\u00f7\u2013]|\bof\b|%|[\d)]\s?x\s?[\d(]|\^")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})*,\d{3}|\d+|\d{1,3}(?: \d{3})+")
_WHOLE = re.compile(r"\$?(?:[1-9]\d{0,14}|0)\.?", re.ASCII)
_MOST_DIGITS = 50
_MOST_PLACES = 18
_MOST_WORDS = 4  # allowed before a number that another one follows


def number(answer: str) -> str | None:
    """Return the number of the first sentence of `answer` in canonical form, or None when it is not clearly one number.

    The form is an integer ("10800"), a decimal of at most eighteen places ("0.5"), or a fraction in lowest terms ("2/3").
    Units, currency and a percent sign are dropped. A calculation ("10 - 3 = 7") gives its result.
    """
    if _WHOLE.fullmatch(answer):  # the common case
        return answer.strip("$.")
    text = _SPACES.sub(" ", answer.replace("\n=", " ="))
    for sign, fraction in _HALVES.items():
        text = text.replace(sign, f" {fraction}")
    text = re.sub(r"(\d) and a half\b", r"\1 1/2", text)
    for symbol, meaning in _SYMBOLS:
        text = text.replace(symbol, meaning)
    text = _WORDING.sub(r" \1 ", text) if "\\" in text else text
    sentence = next((part for part in _SENTENCE.split(text, maxsplit=8) if part and re.search(r"\w", part)), "")
    if _NO_ANSWER.match(sentence):
        return None
    result = _result(sentence)
    if not re.search(r"\d", result):
        return _spelled(result)
    match = _NUMBER.search(result)
    if match is None or _STANDS_APART.search(result[: match.start()]):
        return None
    value = _value(match)
    end = match.end()
    if value is None:
        return None
    if power := _TEN.match(result, end):
        value *= Fraction(10) ** int(power[1])
        end = power.end()
    elif scaled := _SCALED.match(result, end):
        value *= _SCALE[(scaled[1] or scaled[2]).lower()]
        end = scaled.end()
    if _GOES_ON.match(result, end) or _one_of_several(result, match.start(), end):
        return None
    return plain(-value if match["sign"] or match["minus"] else value)


def _result(sentence: str) -> str:
    """Return the result of a calculation ("7" of "10 - 3 = 7", "5" of "x = 5"), else the sentence or its part before "="."""
    *left, right = sentence.split("=")
    sums = [_SUM.search(part) or not re.search(r"\d", part) for part in left]
    if left and all(sums) and right.strip():
        return right
    return sentence if left and sums[0] else sentence.partition("=")[0]


def _one_of_several(text: str, start: int, end: int) -> bool:
    """Return whether a number far from the beginning is followed by another, so that it is unclear which is the answer."""
    return len(text[:start].split()) > _MOST_WORDS and re.search(r"\d", text[end:]) is not None


def _spelled(answer: str) -> str | None:
    match = _SPELLED.match(answer)
    if match is None:
        return None
    if match["units"]:
        return str(_UNITS.index(match["units"].lower()))
    return str(_TENS[match["tens"].lower()] + (_UNITS.index(match["ones"].lower()) if match["ones"] else 0))


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


def plain(value: Fraction | int) -> str:
    """Return `value` as an integer, as a decimal when eighteen places suffice, or else as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, _MOST_PLACES + 1):
        if (value * 10**places).denominator == 1:
            sign, digits = "-" if value < 0 else "", str(abs(int(value * 10**places))).rjust(places + 1, "0")
            return f"{sign}{digits[:-places]}.{digits[-places:]}"
    return f"{value.numerator}/{value.denominator}"
