"""Finds kinds of questions that a model may be unable to answer: by the words of those on which its votes agree least.

No gold answer is read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmsi_jax.evaluation.statistics import holm

FEWEST = 15  # questions of a kind
LOWEST = 0.6  # a kind has at most this part of the others' mean vote share
LEVEL = 0.01  # of Holm's adjusted p-value
MOST = 4  # kinds that are named
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


@dataclass(frozen=True)
class Kind:
    """Questions with one of a few words, whose votes agree far less than those of the other questions."""

    words: tuple[str, ...]
    ids: frozenset[str]
    p_value: float  # of the rank sum of their vote shares, adjusted for the number of words that were tried

    def has(self, question: str) -> bool:
        """Return whether a question has the word that tells this kind best."""
        return self.words[0] in _WORD.findall(question.lower())

    @property
    def name(self) -> str:
        quoted = [f"“{word}”" for word in self.words]
        return f"questions with {' or '.join(quoted)}" if len(quoted) < 3 else f"questions with {', '.join(quoted)}"


def weak_kinds(questions: Mapping[str, str], shares: Mapping[str, float]) -> list[Kind]:
    """Return the kinds of questions on which the vote agrees far less than on the others, the clearest first.

    `questions` and `shares` are texts and vote shares by id. Each word that enough questions have, and not all, is tried: their
    vote shares are compared with the others' by a rank-sum test. Words of the same questions name one kind.
    """
    ids = [id for id in questions if id in shares]
    values = np.array([shares[id] for id in ids])
    having: dict[str, np.ndarray] = {}
    for place, id in enumerate(ids):
        for word in set(_WORD.findall(questions[id].lower())):
            having.setdefault(word, np.zeros(len(ids), bool))[place] = True
    tried = {word: has for word, has in having.items() if FEWEST <= has.sum() <= len(ids) - FEWEST}
    kinds: list[Kind] = []
    left = np.ones(len(ids), bool)
    while tried and len(kinds) < MOST:
        tested = {word: _lower(values[has & left], values[~has & left]) for word, has in tried.items()}
        adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
        weak = [word for word in tried if adjusted[word] < LEVEL and _part(values, tried[word] & left, left) <= LOWEST]
        if not weak:
            break
        best = min(weak, key=lambda word: (tested[word], word))
        own = tried[best] & left
        same = [word for word in weak if _overlap(tried[word] & left, own) > 0.5 and word != best]
        same.sort(key=lambda word: (-_overlap(tried[word] & left, own), word))
        kinds.append(Kind((best, *same[:2]), frozenset(ids[place] for place in np.flatnonzero(own)), adjusted[best]))
        left &= ~own
        tried = {word: has for word, has in tried.items() if FEWEST <= (has & left).sum() <= left.sum() - FEWEST}
    return kinds


def _part(values: np.ndarray, has: np.ndarray, left: np.ndarray) -> float:
    """Return the mean vote share of a kind as a part of that of the other questions."""
    return float(np.mean(values[has]) / max(float(np.mean(values[left & ~has])), 1e-9))


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def _lower(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the one-sided p-value of the rank-sum test (Mann and Whitney 1947) that the first values are lower."""
    from scipy import stats  # takes half a second to import, and only a report needs it

    if min(len(inside), len(outside)) < FEWEST or len(np.unique(np.concatenate([inside, outside]))) == 1:
        return 1.0
    return float(stats.mannwhitneyu(inside, outside, use_continuity=False, alternative="less", method="asymptotic").pvalue)
