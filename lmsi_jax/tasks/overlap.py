"""Do training questions come back among those that are scored? Equal text, or a run of thirteen words in common."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmsi_jax.core.records import Record

WORDS = 13  # Brown et al. 2020 (arXiv 2005.14165), appendix C
MANY = 20  # questions, from which on a common ending is a layout
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """(id of a scored question, id of a training question): one pair for each scored question that leaks."""

    equal: list[tuple[str, str]]  # the same words
    shared: list[tuple[str, str]]  # not the same, but a run of `WORDS` words in common

    def __bool__(self) -> bool:
        return bool(self.equal or self.shared)


def describe(equal: int, shared: int, scored: int) -> str:
    """A leak in words."""
    if not equal and not shared:
        return f"none of {scored:,} scored questions is among those trained on, nor shares {WORDS} words with one"
    return (
        f"of {scored:,} scored questions {equal:,} are among those trained on, and {shared:,} more share a run of {WORDS} "
        f"words with one: their scores may be too good"
    )


def overlap(training: Sequence[Record], scored: Sequence[Record]) -> Overlap:
    """The scored questions whose text training has seen; case, punctuation and white space aside."""
    layout = _common_ending([*training, *scored])
    whole: dict[tuple[str, ...], str] = {}
    runs: dict[int, str] = {}  # by hash: a hundred thousand questions have millions of runs
    for row in training:
        words = _words(row, layout)
        whole.setdefault(words, row["id"])
        for run in _runs(words):
            runs.setdefault(hash(run), row["id"])
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in scored:
        words = _words(row, layout)
        if words in whole:
            found["equal"].append((row["id"], whole[words]))
        elif source := next((runs[hash(run)] for run in _runs(words) if hash(run) in runs), None):
            found["shared"].append((row["id"], source))
    return Overlap(found["equal"], found["shared"])


def _words(row: Record, layout: int) -> tuple[str, ...]:
    question = _WORD.findall(row["question"].lower())
    choices = _WORD.findall(" ".join(row["choices"] or ()).lower())
    return (*question[: len(question) - layout], *choices)


def _common_ending(rows: Sequence[Record]) -> int:
    """How many words all questions end with: a layout, as "is the hypothesis true?", is no leak."""
    endings = [_WORD.findall(row["question"].lower())[::-1] for row in rows]
    if len(endings) < MANY:
        return 0
    return next((i for i, words in enumerate(zip(*endings, strict=False)) if len(set(words)) > 1), min(map(len, endings)))


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[i : i + WORDS] for i in range(len(words) - WORDS + 1))
