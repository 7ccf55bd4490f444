"""Free mathematics in LaTeX: finding the expression, and one form of writing it."""

import re
from fractions import Fraction

from lmsi_jax.tasks.numbers import number

_BRACE = re.compile(r"(?<!\\)[{}]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
WRAPPED = re.compile(r"\\\(\s*(.+?)\s*\\\)|\\\[\s*(.+?)\s*\\\]|\$\$\s*(.+?)\s*\$\$|(?<!\\)\$\s*(.+?)\s*(?<!\\)\$", re.DOTALL)
WORDING = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_MEANT = r"a\.?m|p\.?m|million|thousand|billion|dozen|hundred|or|and|BCE?|AD|CE|east|west|north|south"  # no units
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
_MOST = 400  # characters; what is longer is no final answer


def boxed(text: str) -> list[tuple[int, str]]:
    """(where it starts, what it holds) of each \\boxed{...} of `text`, braces in pairs; "\\boxed 5" holds "5"."""
    found = []
    closing = _closing_braces(text) if _BOX.search(text) else {}
    for match in _BOX.finditer(text):
        start = match.end()
        if text[start : start + 1] != "{":
            word = re.match(r"\S+", text[start : start + 50])
            found.append((start, word[0].rstrip(".$,") if word else ""))
        elif (end := closing.get(start, start + _MOST)) < start + _MOST:
            found.append((start, text[start + 1 : end]))
    return _joined(text, found)


def _closing_braces(text: str) -> dict[int, int]:
    """Where each brace that is closed is closed, found in one pass however many there are."""
    opened: list[int] = []
    closing = {}
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            closing[opened.pop()] = match.start()
    return closing


def _joined(text: str, found: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Boxes with nothing but "and" or a comma between them are one answer of several values."""
    joined: list[tuple[int, list[str]]] = []
    end = 0  # of the box before
    for start, content in found:
        contents = joined.pop()[1] if joined and _BETWEEN_BOXES.fullmatch(_BOX.sub("", text[end:start])) else []
        contents.append(content)
        joined.append((start, contents))
        end = start + len(content) + 2
    return [(start, ", ".join(contents)) for start, contents in joined]


def math(said: str) -> str | None:
    """The expression that `said` is, or that stands first in it, in a plain form; a number in that of `number`."""
    if "\\boxed" in said and (boxes := boxed(said)):
        said = boxes[-1][1]
    elif "\\boxed" in said:
        return None  # one that is never closed
    wrapped = WRAPPED.search(said)
    if wrapped:
        if wrapped.end() < len(said) and _NEXT_PART.match(said, wrapped.end()):
            return None  # "$x = 4$ and $y = 2$"
        said = next(filter(None, wrapped.groups()))
    else:
        said = re.split(r"\.\s|\.$|\n|\s(?:because|since|when|where)\s", said.strip(), maxsplit=1)[0]
    said = said.strip().strip("$*").strip().rstrip(".,;:").strip()
    for old, new in _SIMPLER:
        said = said.replace(old, new)
    said = _DOT.sub("*", _SIZES.sub("", re.sub(r"(?<!\\)\\ ", " ", said))).strip("$* ")
    said = _REPEATING.sub(_fraction, _COLOR.sub(r"\1", said))
    if not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", said):
        said = _DEGREES.sub("", said)
    said = _UNIT.sub("", said) if _UNIT.sub("", said).strip() else said
    said = _ASSIGNED.sub("", WORDING.sub(r"\1", said)).strip().strip("$").strip()
    if not said or len(said) > _MOST or not re.search(r"\w|\\", said) or _PLACEHOLDER.fullmatch(said):
        return None
    bare = re.sub(r"\s*[A-Za-z]{2,}(?:\s[A-Za-z]+)?$", "", said)  # a unit in plain letters
    if _PLAIN_NUMBER.fullmatch(bare) and re.search(r"\d", bare) and (value := number(bare)) is not None:
        return value
    if said.count("\\pm") == 1:  # two values
        said = ", ".join(said.replace("\\pm", sign) for sign in "+-").removeprefix("+")
    said = re.sub(r"_\{(\w)\}", r"_\1", said)
    said = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", said)
    return re.sub(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])", "", said)


def _fraction(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction: 0.1\\overline{6} is 1/6."""
    sign, whole, lead, cycle = match.groups()
    value = Fraction(int(f"0{whole}{lead}{cycle}") - int(f"0{whole}{lead}"), (10 ** len(cycle) - 1) * 10 ** len(lead))
    return f"{sign}{value.numerator}/{value.denominator}"
