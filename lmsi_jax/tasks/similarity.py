"""Finds near copies of texts: those that share most of their word trigrams."""

import re

_WORD = re.compile(r"\w+")
_PERMUTATIONS = 128  # hash functions of MinHash
_HIGHEST = 0.9  # threshold of MinHash, whose bands are too few above it


class NearCopies:
    """A growing collection of texts that finds, for another text, the most similar one.

    The similarity of two texts is that of Jaccard: the share of their word trigrams that both have. MinHash (Broder 1997) finds
    candidates, whose similarity is then computed exactly. It may miss one whose similarity is near the threshold.
    """

    def __init__(self, threshold: float):
        from datasketch import MinHashLSH  # imports SciPy, which takes half a second

        self._threshold = threshold
        self._index = MinHashLSH(threshold=min(threshold, _HIGHEST), num_perm=_PERMUTATIONS)
        self._trigrams: dict[str, frozenset[str]] = {}
        self._order: dict[str, int] = {}

    def add(self, id: str, text: str) -> None:
        """Add a text under an id that no other text has."""
        self._trigrams[id], self._order[id] = trigrams(text), len(self._order)
        self._index.insert(id, _hashed(self._trigrams[id]))

    def nearest(self, text: str) -> tuple[str, float] | None:
        """Return the id and the similarity of the most similar text at or above the threshold, the first one of equals."""
        own = trigrams(text)
        candidates = self._index.query(_hashed(own))
        similar = [(jaccard(own, self._trigrams[id]), -self._order[id], id) for id in candidates]
        best, _, id = max(similar, default=(0.0, 0, ""))
        return (id, best) if best >= self._threshold else None


def trigrams(text: str) -> frozenset[str]:
    """Return the runs of three words of a text, without case and punctuation; a shorter text is one run."""
    words = _WORD.findall(text.lower())
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(len(words) - 2, 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of the elements of two sets that are in both."""
    return len(one & other) / len(one | other)


def _hashed(items: frozenset[str]) -> object:
    from datasketch import MinHash

    hashed = MinHash(num_perm=_PERMUTATIONS)
    hashed.update_batch([item.encode() for item in sorted(items)])
    return hashed
