"""Answers that are a span of text, a name, a date or a number, compared as in DROP (Dua et al. 2019, section 4)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_END = re.compile(r"(?<=[\w)\"'%\]])[.!?](?=\s+[\"'(]?[A-Z])|\n|\s(?:because|since)\s|,\s(?:not|which|who|because|since|as)\s")
_NO_SPAN = re.compile(r"\W*(?:not|neither|either|unknown|unclear|none)\b", re.IGNORECASE)
_ABBREVIATION = re.compile(r"(?:^|\s)(?:[A-Z]|[A-Z][a-z]{1,2}|[A-Z]\.[A-Z]|No|vs)$")  # "St. Louis" is one span


def span(answer: str) -> str | None:
    """Return the span that `answer` begins with, in DROP's normal form, or None when it begins with none."""
    if _NO_SPAN.match(answer):
        return None
    answer = re.sub(r"\\(?:text|textbf|mathrm|boxed)\s*\{([^{}]*)\}?|[$*`_{}]", r"\1", answer)
    end = next((m.start() for m in _END.finditer(answer) if not _ABBREVIATION.search(answer[: m.start()])), len(answer))
    return normalise(answer[:end]) or None


def normalise(text: str) -> str:
    """Return DROP's normal form of an answer: lower case, no articles, no punctuation, numbers in one form."""
    return " ".join(filter(None, map(_token, re.split(r"[\s\-\u2013\u2014]+", text.lower().strip()))))


def _token(token: str) -> str:
    bare = token.strip(string.punctuation + "\u2018\u2019\u201c\u201d").replace(",", "")
    sign = "-" if token.startswith("-") else ""
    if re.fullmatch(r"\d+(?:\.\d+)?|\.\d+", bare):
        whole, _, decimals = bare.partition(".")
        decimals = decimals.rstrip("0")
        return sign + (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")
    word = "".join(c for c in token if c not in string.punctuation + "\u2018\u2019\u201c\u201d")
    return _ARTICLES.sub("", word).strip()


def score(answer: str | None, accepted: Sequence[str]) -> tuple[bool, float]:
    """Return (exact match, F1) of an answer against the accepted answer that it matches best; (False, 0) for None.

    F1 is over words. As in DROP, it is 0 when the accepted answer has numbers and the answer has none of them. Several
    spans, written "a, b and c", are compared as one bag of words, so their order does not matter.
    """
    if answer is None:
        return False, 0.0
    pairs = [(_exact(answer, gold), _f1(_words(answer), _words(gold))) for gold in accepted]
    return any(exact for exact, _ in pairs), max((f1 for _, f1 in pairs), default=0.0)


def _exact(answer: str, gold: str) -> bool:
    several = ", " in gold  # spans, in any order
    same = _words(answer) == _words(gold) if several else normalise(answer) == normalise(gold)
    return same and bool(normalise(gold))


def _words(text: str) -> Counter[str]:
    return Counter(word for word in normalise(text).split() if word != "and")


def _f1(ours: Counter[str], theirs: Counter[str]) -> float:
    numbers = [{word for word in words if word[-1].isdigit()} for words in (ours, theirs)]
    shared = (ours & theirs).total()
    if not shared or (numbers[1] and not numbers[0] & numbers[1]):
        return 0.0
    return 2 * shared / (ours.total() + theirs.total())
