"""Split text into the tokens of arithmetic: numbers, operators, words, and marks at which an expression ends."""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

Number = int | Fraction


class Token(NamedTuple):
    """One token of a text. `value` and `places` (the decimals that are written) are those of a number.

    The kind of an operator is the operator itself: "+", "-", "*", "/", "^", "of".
    """

    kind: str
    start: int
    end: int
    text: str
    value: Number = 0
    places: int = 0


_GROUP = r"(?:,|\{,\}|\\!,|\\,|[\u00a0\u2009\u202f])"  # between groups of three digits
_E = r"(?![A-Za-z])"  # ends the name of a LaTeX command
_TABLE = (  # (kind, pattern), in the order in which they are tried; "" marks what has no meaning in arithmetic
    ("", r"(?<=[^\n]) +"),  # this and the next are first because they are frequent
    ("word", r"(?![Pp]er\s?cent\b|sqrt\b|USD\b|EUR\b|GBP\b)[A-Za-z][A-Za-z\u2019']+(?:-[A-Za-z]+)*"),
    ("line", r"(?m:^[ \t]*(?:[-*+\u2022]|\(?(?:\d{1,3}|[a-zA-Z])[.)])(?=\s))"),  # the mark or number of an item in a list
    ("^", r"(?<=[\d)])\s?\*\*\s?(?=[\d(])|\^(?!\s*\{?\s*\\circ)|[\u00b2\u00b3]"),
    ("", r"[ \t\u00a0\u2009\u202f&`~]+|\*\*|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9{])"),  # spaces and Markdown
    ("", rf"\\[,;! ()]|\\(?:left|right|displaystyle|quad|boxed|fbox){_E}"),
    ("word", r"\d+(?:st|nd|rd|th)\b"),
    ("break", r"(?m:(?<=\s)\|(?=\s|$)|^\|)"),  # between the cells of a table
    ("opaque", r"0[xXbo][0-9A-Fa-f]+|(?<![\d.])0\d+(?![\d.,])"),  # "0xFF", and "0730" as a time of day
    ("opaque", r"\d+(?:[:_']\d+)+|\d*\.\d+(?:\.\d+)+|\d+/\d+/\d+"),  # times and dates
    ("opaque", r"\.\.+|\u2026|[|\u00b1\u03c0_]"),
    ("number", rf"(?:\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d|,\d)|\d+(?!\d|,\d))(?:\.\d+)?(?:[eE][+-]?\d{{1,2}}(?!\w))?|\.\d+"),
    ("opaque", r"\d+(?:,\d+)+(?:\.\d+)?"),  # decimal commas, and lists
    ("number", r"[\u00bc-\u00be\u2153-\u215e]"),  # fractions in one character
    ("break", r"=+>|-+>|[<>\u2264\u2265\u2260\u2261\u2192\u21d2]=?|!="),
    ("break", rf"\\(?:[RrL][A-Za-z]*arrow|implies|to|[lgn]eq?|equiv){_E}"),
    ("about", rf"\u2248|~=|\\approx{_E}|\\sim(?:eq)?{_E}"),
    ("=", r":?=+"),
    ("*", rf"[*\u00d7\u00b7\u2219\u22c5\u2715]|\\(?:times|cdot|ast){_E}|\\\*"),
    ("*", r"(?<=[\d)])\s?\u2022\s?(?=[\d(])|(?<![A-Za-z])[xX](?=\s*[\d$(.])"),
    ("/", rf"[/\u00f7\u2044]|\\div{_E}"),
    ("+", r"\+"),
    ("-", r"[-\u2212\u2013]"),
    ("frac", rf"\\[dtc]?frac{_E}"),
    ("sqrt", rf"\u221a|\\sqrt{_E}|\bsqrt(?=\s*\()"),
    ("unit", rf"\^\s*\{{?\s*\\circ\s*\}}?|\u00b0|\\degree{_E}|\\(?:text|mathrm|mbox|textbf)\s*\{{[^{{}}]*\}}"),
    ("(", r"[({]|\[(?=[^\]\n]*\d)"),
    (")", r"[)}\]]"),
    ("%", r"\\?%|\b[Pp]er\s?cent\b"),
    ("$", r"\\?\$+(?=\s?[\d.(-])|[\u20ac\u00a3\u20b9\u00a5]|\b(?:USD|EUR|GBP)\b"),
    ("", r"\\?\$+"),
    ("opaque", r"\\[A-Za-z]+"),
    ("word", r"[A-Za-z][A-Za-z\u2019']*(?:-[A-Za-z]+)*"),
    ("line", r"\n+|\\\\|\\[\[\]]"),
    ("!", r"!"),
    ("break", r"[\u3000-\U0010ffff]+|[^\n]"),  # other scripts and pictures at once, whatever their length
)  # fmt: skip
_PATTERN = re.compile("|".join(f"({pattern})" for _, pattern in _TABLE))
_KINDS = ("", *(kind for kind, _ in _TABLE))
_GROUPING = re.compile(_GROUP)
_MOST_DIGITS = 40
_SUPERSCRIPTS = {"\u00b2": 2, "\u00b3": 3}
_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "over": "/"}
_BY = {"multiplied": "*", "divided": "/"}
_STARTS = frozenset(("number", "$", "(", "-", "frac", "sqrt"))  # kinds that can begin an operand
_DETERMINERS = frozenset(("the", "her", "his", "their", "its", "those", "these", "all", "that"))


def tokens(text: str) -> list[Token]:
    """Return the tokens of a text. Spaces, LaTeX layout and the delimiters of LaTeX formulas are left out."""
    result: list[Token] = []
    for match in _PATTERN.finditer(text):
        kind = _KINDS[match.lastindex or 0]
        if kind == "word":
            result.append(Token(kind, match.start(), match.end(), match[0]))
        elif kind == "number":
            token = _number(match)
            if (
                token.value % 1
                and not token.text.isascii()
                and result
                and result[-1].kind == "number"
                and result[-1].end == token.start
            ):
                token = token._replace(start=result[-1].start, value=result.pop().value + token.value)  # a mixed number
            result.append(token)
        elif kind:
            result.append(Token(kind, match.start(), match.end(), match[0]))
            if match[0] in _SUPERSCRIPTS:
                result.append(Token("number", match.start(), match.end(), match[0], _SUPERSCRIPTS[match[0]]))
    return _with_operator_words(result)


def _number(match: re.Match[str]) -> Token:
    text = match[0]
    if text.isdigit() and len(text) <= _MOST_DIGITS:
        return Token("number", match.start(), match.end(), text, int(text))
    if not text.isascii() and unicodedata.numeric(text[0], 1) % 1:  # a fraction in one character
        return Token("number", match.start(), match.end(), text, Fraction(unicodedata.numeric(text)).limit_denominator(10))
    digits = _GROUPING.sub("", text)
    if len(digits) > _MOST_DIGITS:
        return Token("opaque", match.start(), match.end(), text)
    mantissa, _, power = digits.lower().partition("e")
    places = len(mantissa.partition(".")[2]) - int(power or 0)
    value = Fraction(digits)
    return Token(
        "number", match.start(), match.end(), text, value if value.denominator > 1 else value.numerator, max(places, 0)
    )


_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
SPELLED = {word: value for value, word in enumerate(_ONES)} | {
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "hundred": 100,
}  # fmt: skip
SPELLED |= {f"{tens}-{ones}": SPELLED[tens] + SPELLED[ones] for tens in list(SPELLED)[20:28] for ones in _ONES[1:10]}
PARTS = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4, "fifth": 5,
    "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "eighth": 8, "eighths": 8, "ninth": 9, "tenth": 10, "tenths": 10,
}  # fmt: skip
_MULTIPLES = {"twice": 2, "double": 2, "thrice": 3, "triple": 3}
_POWERS = {"squared": 2, "cubed": 3}
EQUAL_WORDS = frozenset(("equals", "is", "gives", "makes", "make", "leaves", "yields", "equal"))

_MEANINGFUL = frozenset((*_OPERATORS, *_BY, *SPELLED, *PARTS, *_MULTIPLES, *_POWERS, "root", "of"))


def _with_operator_words(items: list[Token]) -> list[Token]:
    """Return the tokens with words that stand for operators and numbers ("plus", "divided by", "half of") replaced."""
    result: list[Token] = []
    end = 0  # of what is read already
    for at, token in enumerate(items):
        if at < end:
            continue
        read = _read_word(items, at, result) if token.kind == "word" and token.text.lower() in _MEANINGFUL else None
        if read is None:
            result.append(token)
        else:
            made, end = read
            result += made
    return result


def _read_word(items: list[Token], at: int, before: list[Token]) -> tuple[list[Token], int] | None:
    """Return the tokens that a word stands for, and the position after it; None for an ordinary word."""
    token, word = items[at], items[at].text.lower()
    following = items[at + 1] if at + 1 < len(items) else token
    starts = following.kind in _STARTS
    if word in _OPERATORS and (starts or following.text.lower() in SPELLED):
        return [token._replace(kind=_OPERATORS[word])], at + 1
    if word in _BY and following.text.lower() == "by":
        return [token._replace(kind=_BY[word], end=following.end)], at + 2
    if word in _POWERS and before and before[-1].kind in ("number", ")"):
        return [token._replace(kind="^"), token._replace(kind="number", value=_POWERS[word])], at + 1
    if word == "root" and before and before[-1].text.lower() == "square" and following.text == "of":
        return [token._replace(kind="sqrt", start=before.pop().start)], at + 2
    if word in _MULTIPLES and starts:
        return [token._replace(kind="number", value=_MULTIPLES[word]), token._replace(kind="*")], at + 1
    if word in PARTS and following.text.lower() == "of":
        return _part_of(items, at, before)
    if word == "of" and before and (before[-1].kind == "%" or _is_fraction(before)):
        end = _after_determiners(items, at + 1)
        if end < len(items) and items[end].kind in _STARTS:
            return [token._replace(kind="of")], end
    if word in SPELLED and _joins(before, following):
        return [token._replace(kind="number", value=SPELLED[word])], at + 1
    return None


def _joins(before: list[Token], following: Token) -> bool:
    """Return whether a spelled number stands beside an operator, or after a word for "equals"."""
    previous = before[-1] if before else None
    if previous and (previous.kind in "+-*/=" or previous.text.lower() in EQUAL_WORDS):
        return True
    return following.kind in "+-*/=" or following.text.lower() in (*_OPERATORS, *_BY)


def _part_of(items: list[Token], at: int, before: list[Token]) -> tuple[list[Token], int] | None:
    """Read "half of 12", "a third of 12" and "two thirds of 12". A leading count is taken out of `before`."""
    end = _after_determiners(items, at + 2)
    if end >= len(items) or items[end].kind not in _STARTS:
        return None
    token, count, start = items[at], 1, items[at].start
    if before and before[-1].kind == "word" and before[-1].text.lower() in ("a", "one", "two", "three", "four", "five"):
        first = before.pop()
        count, start = SPELLED.get(first.text.lower(), 1), first.start
    part = token._replace(kind="number", start=start, value=Fraction(count, PARTS[token.text.lower()]))
    return [part, items[at + 1]._replace(kind="of")], end


def _is_fraction(before: list[Token]) -> bool:
    return len(before) >= 3 and before[-2].kind == "/" and before[-1].kind == before[-3].kind == "number"


def _after_determiners(items: list[Token], at: int) -> int:
    while at < len(items) and items[at].text.lower() in _DETERMINERS:
        at += 1
    return at
