"""Extract typed answers from a model's text, and bring all ways of writing an answer to one canonical form.

An ambiguous text abstains, because a missing vote costs less than a wrong one. `VERSION` is stored with votes and scores,
because a change of these rules changes their numbers.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lmsi_jax.answers import equality, labels, latex
from lmsi_jax.answers.declared import declared, end_of_hedge, strip_thinking, truncate_at_next_turn
from lmsi_jax.answers.latex import math
from lmsi_jax.answers.numbers import number
from lmsi_jax.answers.spans import span

VERSION = 5
TYPES = ("number", "choice", "yes_no", "span", "math", "text")

_OPENS = {  # the beginning of a text that starts with its answer
    "number": re.compile(r"[\s*(\[\\$\u20ac\u00a3-]*\.?\d"),
    "choice": re.compile(r"[\s*]*\(?[A-Ja-j](?:[).*]|\s*$)"),
    "yes_no": re.compile(
        r"[\s*]*(?:(?:yes|no|true|false)\b\s*(?:[,.!;:*]|$)|it(?:'s|\s+is)\s+(?:not\s+|im)possible)", re.IGNORECASE
    ),
    "math": re.compile(r"[\s*]*(?:\$.+\$|\\\(.+\\\)|-?\d)[\s*.]*$"),
}
_BARE_WORDS = 6
_READINGS = 5
# For guesses when no answer is declared:
_ASIDE = re.compile(r"\W*(?:check|verif|note|explanation|reasoning)", re.IGNORECASE)
_MENTIONED = re.compile(r"\(([A-Ja-j])\)|\b(?i:option|choice)\s+([A-Ja-j])\b|(?<![\w(])([A-J])\)")
_VERDICTS = re.compile(r"(?:^|\b(?:so|therefore|thus|hence),?\s|,\s)(yes|no)(?=[,.!])", re.IGNORECASE)
_LONGEST = 500  # characters of an answer that are read


@dataclass(frozen=True)
class Answer:
    """The answer of a path in canonical form. Equal strings count as the same vote."""

    value: str


@dataclass(frozen=True)
class Abstention:
    """Why a path has no answer: `empty`, `truncated`, `no_answer_phrase`, `hedged`, or `no_number`, `no_choice` and so on."""

    reason: str


def extract(
    text: str, answer_type: str, finish: str = "stop", *, flexible: bool = False, allowed: Collection[str] = ()
) -> Answer | Abstention:
    """Return the last readable answer that `text` declares after "answer is", "Answer:", "####" or "\\boxed", or an abstention.

    A short text that is nothing but an answer counts too. `finish` is "length" for a path that was cut off at the token
    limit. Such a path is `truncated` when it has no answer, or one that the cut may have shortened. A number, choice or yes_no
    answer is withdrawn by a later "the answer depends on" or "it depends", and the path is `hedged`. With `flexible`, a text
    that declares no answer gives its last value of the type. This guess is right less often; it is for models that were not
    shown how to end. Values that are not in `allowed` are skipped, unless `allowed` is empty.
    """
    text = truncate_at_next_turn(text)
    if not text.strip():
        return Abstention("empty")
    visible = strip_thinking(text)
    if visible is None:
        return Abstention("truncated" if finish == "length" else "no_answer_phrase")
    places, cut, hedge = 0, None, end_of_hedge(visible, answer_type)
    for declaration, rest in declared(visible, answer_type, hedge):
        places += 1
        value = canonical(declaration, answer_type)
        if value is None or (allowed and value not in allowed):
            continue
        if cut is not None:  # a declaration that was cut off counts when the one before it agrees
            return Answer(value) if value == cut else Abstention("truncated")
        if finish != "length" or rest or declaration[-1:] in ".!?)}]*$\n" or value == canonical(declaration + "0", answer_type):
            return Answer(value)
        cut = value
    if finish == "length":
        return Abstention("truncated")
    value = None if places or hedge else _bare(visible, answer_type)
    if value is None and flexible:
        value = _guess(_next_sentences(visible, hedge) if hedge else visible, answer_type)
    if value is not None and (not allowed or value in allowed):
        return Answer(value)
    return Abstention(f"no_{answer_type}" if places else "hedged" if hedge else "no_answer_phrase")


def _next_sentences(text: str, start: int) -> str:
    """Return the text after the sentence that contains position `start`."""
    return "".join(re.split(r"[.!?\n]", text[start:], maxsplit=1)[1:])


def _bare(text: str, answer_type: str) -> str | None:
    """Return the answer of a text that is nothing else: "B", "(b) pears", "42", "Yes."."""
    answer = text.strip()
    if "\n" in answer or len(answer.split()) > _BARE_WORDS:
        return None
    if answer_type not in _OPENS or not _OPENS[answer_type].match(answer):
        return None
    return canonical(answer.strip("*"), answer_type)


def _guess(text: str, answer_type: str) -> str | None:
    """Return the result of the last sentence that has one or, for a choice or yes_no, what the text begins with."""
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
    """Return the parts of a sentence that may be its result, the likeliest first."""
    after = [sentence.rpartition("=")[2]] if "=" in sentence else []
    if answer_type == "number":
        starts = [m.start() for m in re.finditer(r"(?<![\w.,])-?[$]?\.?\d[\d,.]*", sentence)]
        return after + [sentence[start:] for start in reversed(starts)]
    if answer_type == "math":
        inner = [next(filter(None, groups)) for groups in latex.WRAPPED.findall(sentence)]
        return [part.rpartition("=")[2] for part in reversed(inner)] + after
    if answer_type == "choice":
        letters = {letter.upper() for groups in _MENTIONED.findall(sentence) for letter in groups if letter}
        return list(letters) if len(letters) == 1 else []
    if answer_type == "yes_no":
        return _VERDICTS.findall(sentence)[::-1]
    return [sentence]


def canonical(answer: str, answer_type: str) -> str | None:
    """Return the canonical form of an answer ("10800" for "10,800" and "$10800.00"), or None when it is not of the type."""
    if not answer.isascii():  # digits of other scripts count as digits
        answer = "".join(str(int(c)) if c.isdecimal() else c for c in answer[:_LONGEST])
    for _ in range(_READINGS):
        answer = answer[:_LONGEST]
        value = _READ[answer_type](answer)
        if value is None or value == answer:
            return value
        answer = value  # repeated until the form is stable
    return None


def equivalent(a: str, b: str, answer_type: str) -> bool:
    """Return whether two answers are equivalent; False when one of them has no canonical form."""
    first, second = canonical(a, answer_type), canonical(b, answer_type)
    if first is None or second is None:
        return False
    return first == second or (answer_type == "math" and equality.equal(first, second))


def group(values: Sequence[str | None], answer_type: str) -> list[str | None]:
    """Replace each canonical answer by the first one that is equivalent to it, so that both count as the same vote."""
    if answer_type != "math":
        return list(values)  # equivalent answers are already equal strings
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
