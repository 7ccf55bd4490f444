"""Typed answers: extraction from a model's text, and one canonical form for all ways of writing an answer.

Where a text is ambiguous it abstains: a missing vote costs less than a wrong one. `VERSION` is stored with votes and
scores: a change of these rules changes numbers.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lmsi_jax.tasks import equality, labels, latex
from lmsi_jax.tasks.declared import declared, end_of_hedge, own_text, without_thought
from lmsi_jax.tasks.latex import math
from lmsi_jax.tasks.numbers import number
from lmsi_jax.tasks.spans import span

VERSION = 5
TYPES = ("number", "choice", "yes_no", "span", "math", "text")

_OPENS = {  # how a text begins that begins with its answer
    "number": re.compile(r"[\s*(\[\\$\u20ac\u00a3-]*\.?\d"),
    "choice": re.compile(r"[\s*]*\(?[A-Ja-j](?:[).*]|\s*$)"),
    "yes_no": re.compile(
        r"[\s*]*(?:(?:yes|no|true|false)\b\s*(?:[,.!;:*]|$)|it(?:'s|\s+is)\s+(?:not\s+|im)possible)", re.IGNORECASE
    ),
    "math": re.compile(r"[\s*]*(?:\$.+\$|\\\(.+\\\)|-?\d)[\s*.]*$"),
}
_BARE_WORDS = 6
_READINGS = 5
# For guesses where nothing is said to be the answer:
_ASIDE = re.compile(r"\W*(?:check|verif|note|explanation|reasoning)", re.IGNORECASE)
_MENTIONED = re.compile(r"\(([A-Ja-j])\)|\b(?i:option|choice)\s+([A-Ja-j])\b|(?<![\w(])([A-J])\)")
_VERDICTS = re.compile(r"(?:^|\b(?:so|therefore|thus|hence),?\s|,\s)(yes|no)(?=[,.!])", re.IGNORECASE)
_LONGEST = 500  # characters of what is said that are read


@dataclass(frozen=True)
class Answer:
    """What a path says, in canonical form: equal strings are one vote."""

    value: str


@dataclass(frozen=True)
class Abstention:
    """Why a path has no answer: `empty`, `truncated`, `no_answer_phrase`, `hedged`, or `no_number`, `no_choice` and so on."""

    reason: str


def extract(
    text: str, answer_type: str, finish: str = "stop", *, flexible: bool = False, allowed: Collection[str] = ()
) -> Answer | Abstention:
    """What `text` says is its answer: after the last "answer is", "Answer:", "####" or "\\boxed" that can be read.

    `finish` is "length" for a path that was cut at its longest: without an answer, or with one that the cut may have
    shortened, it is `truncated`. A number, choice, or yes or no that is followed by "the answer depends on" or "it depends"
    is taken back: the path is `hedged`. `flexible` takes the last thing of the type where nothing is said to be the answer,
    for models that were not shown how to end; it is a guess, and right less often. Answers that are not `allowed` (if any
    are named) abstain.
    """
    text = own_text(text)
    if not text.strip():
        return Abstention("empty")
    spoken = without_thought(text)
    if spoken is None:
        return Abstention("truncated" if finish == "length" else "no_answer_phrase")
    places, cut, hedge = 0, None, end_of_hedge(spoken, answer_type)
    for said, rest in declared(spoken, answer_type, hedge):
        places += 1
        value = canonical(said, answer_type)
        if value is None or (allowed and value not in allowed):
            continue
        if cut is not None:  # a cut repetition of what was said in full counts
            return Answer(value) if value == cut else Abstention("truncated")
        if finish != "length" or rest or said[-1:] in ".!?)}]*$\n" or value == canonical(said + "0", answer_type):
            return Answer(value)
        cut = value
    if finish == "length":
        return Abstention("truncated")
    value = None if places or hedge else _bare(spoken, answer_type)
    if value is None and flexible:
        value = _guess(_next_sentences(spoken, hedge) if hedge else spoken, answer_type)
    if value is not None and (not allowed or value in allowed):
        return Answer(value)
    return Abstention(f"no_{answer_type}" if places else "hedged" if hedge else "no_answer_phrase")


def _next_sentences(text: str, start: int) -> str:
    """What follows the sentence that `start` lies in."""
    return "".join(re.split(r"[.!?\n]", text[start:], maxsplit=1)[1:])


def _bare(text: str, answer_type: str) -> str | None:
    """The answer that is all of a text: "B", "(b) pears", "42", "Yes."."""
    said = text.strip()
    if "\n" in said or len(said.split()) > _BARE_WORDS or answer_type not in _OPENS or not _OPENS[answer_type].match(said):
        return None
    return canonical(said.strip("*"), answer_type)


def _guess(text: str, answer_type: str) -> str | None:
    """The result of the last sentence that has one; of a choice and a yes or no else what the text begins with."""
    for line in reversed(text.strip().splitlines()[-20:]):
        if _ASIDE.match(line):
            continue
        for sentence in reversed(re.split(r"(?<=[.!?])\s", line[-1000:])):
            for part in _parts(sentence, answer_type):
                value = canonical(part, answer_type)
                if value is not None:
                    return value
    if answer_type in ("choice", "yes_no") and _OPENS[answer_type].match(text.strip()):
        return canonical(text.strip().strip("*").split("\n", 1)[0], answer_type)
    return None


def _parts(sentence: str, answer_type: str) -> list[str]:
    """What of a sentence may be a result, the likeliest first: what follows its last "=", then its last thing of the type."""
    after = [sentence.rpartition("=")[2]] if "=" in sentence else []
    if answer_type == "number":
        starts = [m.start() for m in re.finditer(r"(?<![\w.,])-?[$]?\.?\d[\d,.]*", sentence)]
        return after + [sentence[start:] for start in reversed(starts)]
    if answer_type == "math":
        inner = [next(filter(None, groups)) for groups in latex.WRAPPED.findall(sentence)]
        return [part.rpartition("=")[2] for part in reversed(inner)] + after
    if answer_type == "choice":
        letters = {letter.upper() for found in _MENTIONED.findall(sentence) for letter in found if letter}
        return list(letters) if len(letters) == 1 else []
    if answer_type == "yes_no":
        return _VERDICTS.findall(sentence)[::-1]
    return [sentence]


def canonical(said: str, answer_type: str) -> str | None:
    """One form for all ways of writing an answer ("10,800" and "$10800.00" are "10800"); None when there is none."""
    if not said.isascii():  # digits of other scripts are digits
        said = "".join(str(int(c)) if c.isdecimal() else c for c in said[:_LONGEST])
    for _ in range(_READINGS):
        said = said[:_LONGEST]
        value = _READ[answer_type](said)
        if value is None or value == said:
            return value
        said = value  # a form that is read as itself
    return None


def equivalent(a: str, b: str, answer_type: str) -> bool:
    """Do two ways of writing an answer say the same? False when one of them says nothing."""
    first, second = canonical(a, answer_type), canonical(b, answer_type)
    if first is None or second is None:
        return False
    return first == second or (answer_type == "math" and equality.equal(first, second))


def group(values: Sequence[str | None], answer_type: str) -> list[str | None]:
    """Canonical answers, each replaced by the first that is equivalent to it: votes are counted on these classes."""
    if answer_type != "math":
        return list(values)  # equal strings are the classes
    first: dict[str, str] = {}
    for value in values:
        if value is not None and value not in first:
            first[value] = next((other for other in dict.fromkeys(first.values()) if equality.equal(value, other)), value)
    return [None if value is None else first[value] for value in values]


_READ: dict[str, Callable[[str], str | None]] = {
    "number": number,
    "choice": labels.choice,
    "yes_no": labels.yes_no,
    "span": span,
    "math": math,
    "text": labels.text,
}
