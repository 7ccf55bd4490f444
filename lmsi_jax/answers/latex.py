"""Find mathematical expressions in LaTeX, and write them in one form."""

import re
from fractions import Fraction

from lmsi_jax.answers.numbers import number

_BRACE = re.compile(r"(?<!\\)[{}]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
WRAPPED = re.compile(r"\\\(\s*(.+?)\s*\\\)|\\\[\s*(.+?)\s*\\\]|\$\$\s*(.+?)\s*\$\$|(?<!\\)\$\s*(.+?)\s*(?<!\\)\$", re.DOTALL)
WORDING = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_MEANT = r"a\.?m|p\.?m|million|thousand|billion|dozen|hundred|or|and|BCE?|AD|CE|east|west|north|south"  # not units
_UNIT = re.compile(
    rf"\s*\\(?:text|mathrm|mbox)\s*\{{\s*+(?!(?:{_MEANT})\b)[^{{}}]*\}}(?:\s*\^\s*\{{?[23]\}}?)?\s*$", re.IGNORECASE
)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\u00b0")
_ASSIGNED = re.compile(
    r"^\\?[a-zA-Z](?:_\{?\w\}?)?\s*(?:=|\\in)\s*(?!.*=)|^[a-zA-Z]\([^()=]*\)\s*=\s*(?=-?[\d.]+$)|^\([a-z](?:,\s?[a-z])+\)\s*=\s*"
)
_PLAIN_NUMBER = re.compile(r"[-+]?\s*(?:\d[\d, ]*)?(?:\.\d+)?\s*(?:\\frac(?:\{-?\d+\}\{\d+\}|\d\d)|/\s*\d+)?")
_SIMPLER = (
    ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\!", ""), ("\\,", " "), ("\\;", " "),
    ("\\:", " "), ("\\$", ""), ("\\%", ""), ("%", ""), ("\\displaystyle", ""), ("{,}", ","), ("\u2212", "-"),
    ("\u03c0", "\\pi"), ("\\times", "*"),
    ("\\varnothing", "\\emptyset"), ("\u00d7", "*"), ("\\lbrace", "\\{"), ("\\rbrace", "\\}"),
    ("~", " "),
)  # fmt: skip
_SIZES = re.compile(r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr)(?![a-z])")
_DOT = re.compile(r"\\cdot(?![a-z])")
_COLOR = re.compile(r"\\(?:text)?color\s*\{\w+\}\s*\{([^{}]*)\}")
_REPEATING = re.compile(r"(-?)(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_NEXT_PART = re.compile(r"\s*(?:,|;|and|or|,\s?and)?\s*(?:[a-z]\s?=\s?)?\$", re.IGNORECASE)
_BETWEEN_BOXES = re.compile(r"\}?\$?\s*(?:,|;|and|or|,\s?and)\s*\$?(?:[a-z]\s?=\s?)?", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\\[lc]?dots|[.?_\s]+|answer|\\text\{answer\}", re.IGNORECASE)
_MOST = 400  # characters; a longer expression is not a final answer


def boxed(text: str) -> list[tuple[int, str]]:
    """Return (position, content) of each \\boxed{...} in `text`, with balanced braces. The content of "\\boxed 5" is "5".

    Boxes that are joined by a comma or "and" count as one box, at the position of the last.
    """
    boxes = []
    closing = _closing_braces(text) if _BOX.search(text) else {}
    for match in _BOX.finditer(text):
        start = match.end()
        if text[start : start + 1] != "{":
            word = re.match(r"\S+", text[start : start + 50])
            boxes.append((start, word[0].rstrip(".$,") if word else ""))
        elif (end := closing.get(start, start + _MOST)) < start + _MOST:
            boxes.append((start, text[start + 1 : end]))
    return _joined(text, boxes)


def _closing_braces(text: str) -> dict[int, int]:
    """Return the closing position of each opening brace that is closed, in one pass over the text."""
    opened: list[int] = []
    closing = {}
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            closing[opened.pop()] = match.start()
    return closing


def _joined(text: str, boxes: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Join boxes with only "and" or a comma between them into one answer of several values."""
    joined: list[tuple[int, list[str]]] = []
    end = 0  # of the previous box
    for start, content in boxes:
        contents = joined.pop()[1] if joined and _BETWEEN_BOXES.fullmatch(_BOX.sub("", text[end:start])) else []
        contents.append(content)
        joined.append((start, contents))
        end = start + len(content) + 2
    return [(start, ", ".join(contents)) for start, contents in joined]


def math(answer: str) -> str | None:
    """Return the expression of `answer` in a plain form, or None when it cannot be read. A number has the form of `number`."""
    if "\\boxed" in answer and (boxes := boxed(answer)):
        answer = boxes[-1][1]
    elif "\\boxed" in answer:
        return None  # the box is never closed
    wrapped = WRAPPED.search(answer)
    if wrapped:
        if wrapped.end() < len(answer) and _NEXT_PART.match(answer, wrapped.end()):
            return None  # "$x = 4$ and $y = 2$"
        answer = next(filter(None, wrapped.groups()))
    else:
        answer = re.split(r"\.\s|\.$|\n|\s(?:because|since|when|where)\s", answer.strip(), maxsplit=1)[0]
    answer = answer.strip().strip("$*").strip().rstrip(".,;:").strip()
    for old, new in _SIMPLER:
        answer = answer.replace(old, new)
    answer = _DOT.sub("*", _SIZES.sub("", re.sub(r"(?<!\\)\\ ", " ", answer))).strip("$* ")
    answer = _REPEATING.sub(_fraction, _COLOR.sub(r"\1", answer))
    if not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", answer):
        answer = _DEGREES.sub("", answer)
    answer = _UNIT.sub("", answer) if _UNIT.sub("", answer).strip() else answer
    answer = _ASSIGNED.sub("", WORDING.sub(r"\1", answer)).strip().strip("$").strip()
    if not answer or len(answer) > _MOST or not re.search(r"\w|\\", answer) or _PLACEHOLDER.fullmatch(answer):
        return None
    bare = re.sub(r"\s*[A-Za-z]{2,}(?:\s[A-Za-z]+)?$", "", answer)  # a unit in plain letters
    if _PLAIN_NUMBER.fullmatch(bare) and re.search(r"\d", bare) and (value := number(bare)) is not None:
        return value
    if answer.count("\\pm") == 1:  # two values
        answer = ", ".join(answer.replace("\\pm", sign) for sign in "+-").removeprefix("+")
    answer = re.sub(r"_\{(\w)\}", r"_\1", answer)
    answer = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", answer)
    return re.sub(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])", "", answer)


def _fraction(match: re.Match[str]) -> str:
    """Return a repeating decimal as a fraction: 0.1\\overline{6} is 1/6."""
    sign, whole, lead, cycle = match.groups()
    value = Fraction(int(f"0{whole}{lead}{cycle}") - int(f"0{whole}{lead}"), (10 ** len(cycle) - 1) * 10 ** len(lead))
    return f"{sign}{value.numerator}/{value.denominator}"
