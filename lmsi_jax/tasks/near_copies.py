"""Finds near copies in large collections of texts, and says which texts stay."""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmsi_jax.tasks.overlap import runs_of_words
from lmsi_jax.tasks.similarity import jaccard, trigrams

Kind = Literal["text", "question"]
KINDS = ("text", "question")
DEFAULT_SIMILARITY = {"text": 0.8, "question": 0.5}
ROWS, BANDS = 8, 32  # of MinHash: of pairs with a similarity of 0.8 99.7% share a band, with 0.9 all, and with 0.3 0.2%
LINKS = 8  # a text is compared with at most so many earlier ones of each band
MOST_EQUAL = 200  # and a question with at most so many earlier ones of the same numbers
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d]+")


@dataclass(frozen=True)
class Copy:
    """A text that is left out, by its position, and why: it equals, resembles, or shares a run of words with another one.

    `of` is the position of the other text: of those given before, if `of_other`, or else of the collection itself.
    """

    text: int
    of: int
    of_other: bool
    similarity: float  # 1 for equal words
    reason: Literal["near", "span"]


def near_copies(texts: Sequence[str], threshold: float, kind: Kind = "text", others: Sequence[str] = ()) -> list[Copy]:
    """Return which texts are near copies of an earlier text that stays, or of one of `others`, in their order.

    Texts are similar by the share of their word trigrams that both have (Jaccard). MinHash (Broder 1997) finds the pairs, whose
    similarity is then computed exactly. Of the kind "question", two are similar if they have the same numbers in the same
    order, and by the share of the words that both have, without capitalised ones, which may be names. Questions without numbers
    are compared as texts. A text that shares a run of 13 words with one of `others` is left out too (Brown et al. 2020).
    """
    together, found, gone = [*others, *texts], list[Copy](), set[int]()
    candidates = _candidates(together, kind)
    spans = {run: i for i, other in enumerate(others) for run in runs_of_words(other)}
    for i in range(len(others), len(together)):
        near = ((j, _similarity(together[i], together[j], kind)) for j in candidates.get(i, ()) if j not in gone)
        copied = next(((j, share) for j, share in near if share >= threshold), None)
        span = next((spans[run] for run in runs_of_words(together[i]) if run in spans), None) if spans else None
        if copied is None and span is None:
            continue
        gone.add(i)
        of, share = copied or (span or 0, _similarity(together[i], together[span or 0], kind))
        is_other = of < len(others)
        place = of if is_other else of - len(others)
        found.append(Copy(i - len(others), place, is_other, share, "near" if copied else "span"))
    return found


def _similarity(one: str, other: str, kind: Kind) -> float:
    if kind == "text" or not _numbers(one):
        return jaccard(trigrams(one), trigrams(other))
    if _numbers(one) != _numbers(other):
        return 0.0
    first, second = (frozenset(word for word in _WORD.findall(text) if word[0].islower()) for text in (one, other))
    return jaccard(first, second) if first or second else jaccard(trigrams(one), trigrams(other))


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(_NUMBER.findall(text))


def _candidates(texts: Sequence[str], kind: Kind) -> dict[int, list[int]]:
    """Return, for each text, the earlier ones that may be similar, the earliest first."""
    earlier: dict[int, set[int]] = defaultdict(set)
    hashed = list(range(len(texts)))
    if kind == "question":
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i, text in enumerate(texts):
            groups[_numbers(text)].append(i)
        hashed = groups.pop((), [])
        for group in groups.values():
            for place, i in enumerate(group):
                earlier[i].update(group[: min(place, MOST_EQUAL)])
    for first, second in _same_band(_signatures([texts[i] for i in hashed])):
        earlier[hashed[second]].add(hashed[first])
    return {i: sorted(of) for i, of in earlier.items()}


def _signatures(texts: Sequence[str]) -> np.ndarray:
    """Return the MinHash values of each text, of shape (texts, ROWS * BANDS)."""
    from datasketch import MinHash  # imports SciPy, which takes half a second

    sets = ([trigram.encode() for trigram in trigrams(text)] for text in texts)
    values = (each.hashvalues for each in MinHash.generator(sets, num_perm=ROWS * BANDS, hashfunc=zlib.crc32))
    signatures = np.empty((len(texts), ROWS * BANDS), np.uint32)
    for i, each in enumerate(values):
        signatures[i] = each
    return signatures


def _same_band(signatures: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs (earlier, later) of rows that are equal in a band, a row with at most the first `LINKS` of its band."""
    factors = np.random.default_rng(0).integers(1, 2**63, ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for band in range(BANDS):
        part = signatures[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        keys = (part * factors).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]]) if len(order) else np.zeros(0, int)
        lengths = np.diff(np.r_[starts, len(order)])
        for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
            rows = order[start : start + length].tolist()
            for place, later in enumerate(rows[1:], start=1):
                yield from ((earlier, later) for earlier in rows[: min(place, LINKS)])
