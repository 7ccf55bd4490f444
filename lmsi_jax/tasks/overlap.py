"""Find scored questions that also occur in training: with equal text, or with a run of thirteen words in common."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmsi_jax.core.records import Record

WORDS = 13  # Brown et al. 2020 (arXiv 2005.14165), appendix C
MANY = 20  # with at least so many questions, a common ending is a template
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """Pairs (id of a scored question, id of a training question), one for each scored question that leaks."""

    equal: list[tuple[str, str]]  # the same words
    shared: list[tuple[str, str]]  # different words, but a run of `WORDS` words in common

    def __bool__(self) -> bool:
        return bool(self.equal or self.shared)


def describe(equal: int, shared: int, scored: int) -> str:
    """Return the numbers of leaks, out of `scored` questions, as a phrase for the log and the report."""
    if not equal and not shared:
        return f"none of {scored:,} scored questions is among those trained on or shares a run of {WORDS} words with one"
    return (
        f"of {scored:,} scored questions {equal:,} are among those trained on, and {shared:,} more share a run of {WORDS} "
        f"words with one: their scores may be too high"
    )


def overlap(training: Sequence[Record], scored: Sequence[Record]) -> Overlap:
    """Return the scored questions that leak from training, compared without case, punctuation and white space."""
    template = _common_ending([*training, *scored])
    whole: dict[tuple[str, ...], str] = {}
    runs: dict[int, str] = {}  # keyed by hash, because a hundred thousand questions have millions of runs
    for row in training:
        words = _words(row, template)
        whole.setdefault(words, row["id"])
        for run in _runs(words):
            runs.setdefault(hash(run), row["id"])
    leaks = Overlap([], [])
    for row in scored:
        words = _words(row, template)
        if words in whole:
            leaks.equal.append((row["id"], whole[words]))
        elif source := next((runs[hash(run)] for run in _runs(words) if hash(run) in runs), None):
            leaks.shared.append((row["id"], source))
    return leaks


def _words(row: Record, template: int) -> tuple[str, ...]:
    question = _WORD.findall(row["question"].lower())
    choices = _WORD.findall(" ".join(row["choices"] or ()).lower())
    return (*question[: len(question) - template], *choices)


def _common_ending(rows: Sequence[Record]) -> int:
    """Return how many last words all questions share. A template such as "is the hypothesis true?" is not a leak."""
    endings = [_WORD.findall(row["question"].lower())[::-1] for row in rows]
    if len(endings) < MANY:
        return 0
    return next((i for i, words in enumerate(zip(*endings, strict=False)) if len(set(words)) > 1), min(map(len, endings)))


def runs_of_words(text: str) -> Iterator[tuple[str, ...]]:
    """Return the runs of `WORDS` words of a text, without case and punctuation; none of a shorter text."""
    return _runs(tuple(_WORD.findall(text.lower())))


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[i : i + WORDS] for i in range(len(words) - WORDS + 1))
