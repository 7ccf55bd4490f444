"""People's verdicts on labels and paths: what is reviewed, in which order, and what the verdicts settle."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record

VERDICTS = ("right", "wrong", "unclear")
BANDS = (0.25, 0.5)  # the vote shares that separate the bands of labels, from few agreeing paths to a majority
DOUBLED = 0.15  # share of labels that two reviewers get, to measure how far they agree


def band_of(share: float) -> int:
    """Return the band of a vote share: 0 up to the first limit, and so on."""
    return sum(share > limit for limit in BANDS)


def review_order(shares: Mapping[str, float], seed: int) -> list[str]:
    """Return the ids of labels in the order of their review.

    Within each band of vote share the order is random, and the first n labels have the same share of each band, or nearly. So
    the reviewed labels are a stratified random sample whenever the reviewing stops.
    """
    places: list[tuple[float, int, str]] = []
    for band in range(len(BANDS) + 1):
        ids = sorted(id for id, share in shares.items() if band_of(share) == band)
        random.Random(f"review {seed} {band}").shuffle(ids)
        places += [((rank + 0.5) / len(ids), band, id) for rank, id in enumerate(ids)]
    return [id for _, _, id in sorted(places)]


def is_doubled(id: str, seed: int) -> bool:
    """Return whether two reviewers get a label, whichever they are."""
    return random.Random(f"doubled {seed} {id}").random() < DOUBLED


@dataclass(frozen=True)
class Reviews:
    """The last verdict of each reviewer.

    `labels` are the verdicts on voted answers, by question id and answer and then by reviewer. `paths` are those on paths, by
    question id and hash of the text.
    """

    labels: dict[tuple[str, str], dict[str, str]]
    paths: dict[tuple[str, str], dict[str, str]]

    @classmethod
    def of(cls, rows: Iterable[Record], file: str = "reviews") -> "Reviews":
        """Return the last verdicts among rows of reviews.jsonl. Raises UserError for a row that is no review."""
        labels: dict[tuple[str, str], dict[str, str]] = {}
        paths: dict[tuple[str, str], dict[str, str]] = {}
        for row in rows:
            kind = "text_hash" if row.get("path") is not None else "answer"
            texts = [row.get(name) for name in ("id", "reviewer", kind)]
            if row.get("verdict") not in VERDICTS or not all(isinstance(text, str) for text in texts):
                raise UserError(
                    f"{file}: {row!r:.160} is no review; one needs `id`, `reviewer`, `verdict` ({', '.join(VERDICTS)}), and "
                    f"`answer`, or `path` and `text_hash`."
                )
            table = paths if kind == "text_hash" else labels
            table.setdefault((row["id"], row[kind]), {})[row["reviewer"]] = row["verdict"]
        return cls(labels, paths)

    def of_label(self, id: str, answer: str | None) -> str | None:
        """Return what the reviewers of a label settle: "right", "wrong", or None."""
        return settled(self.labels.get((id, answer or ""), {}).values())

    def of_path(self, id: str, text_hash: str) -> str | None:
        """Return what the reviewers of a path settle: "right", "wrong", or None."""
        return settled(self.paths.get((id, text_hash), {}).values())


def settled(verdicts: Iterable[str]) -> str | None:
    """Return the verdict of most reviewers who decide; None if nobody decides, or as many say right as wrong."""
    counted: Sequence[str] = list(verdicts)
    right, wrong = counted.count("right"), counted.count("wrong")
    return None if right == wrong else "right" if right > wrong else "wrong"
