"""Hands items to reviewers and keeps what they decide."""

import datetime
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, fingerprint
from lmsi_jax.review.items import Item
from lmsi_jax.review.log import Log
from lmsi_jax.trust.reviews import VERDICTS, Reviews, is_doubled

LEASE_SECONDS = 900.0  # for which an item stays with the tab that shows it


class Desk:
    """The items of one review, in order, and the reviews of them.

    An item goes to one reviewer, or to two if it is doubled and there are several reviewers. It is shown in one tab at a time.
    """

    def __init__(self, items: Sequence[Item], reviews: Log, rankings: Log, reviewers: Sequence[str], seed: int):
        self._items = {item.id: item for item in items}
        self._reviews, self._rankings, self._lock = reviews, rankings, threading.Lock()
        double = len(reviewers) > 1
        self._wanted = {id: 1 + (double and is_doubled(id, seed)) for id in self._items}
        self._leases: dict[tuple[str, str], tuple[str, float]] = {}  # (id, reviewer) -> (tab, end)
        self._done: dict[str, set[str]] = {id: set() for id in self._items}  # the reviewers of each item
        self._keys: set[str] = set()
        self._ranked = {row.get("key", "") for row in rankings.rows()}
        rows = reviews.rows()
        Reviews.of(rows, str(reviews.file))
        for row in rows:
            self._note(row)

    def _note(self, row: Record) -> None:
        self._keys.add(row.get("key", ""))
        if row["id"] in self._done and row.get("path") is None and row.get("answer") == self._items[row["id"]].answer:
            self._done[row["id"]].add(row["reviewer"])

    def next(self, reviewer: str, tab: str) -> Item | None:
        """Return the next item for a tab of a reviewer, which stays with it for a while; None when nothing is left."""
        with self._lock:
            now = time.monotonic()
            self._leases = {key: lease for key, lease in self._leases.items() if lease[1] > now}
            for id, item in self._items.items():
                if reviewer in self._done[id] or self._leases.get((id, reviewer), (tab,))[0] != tab:
                    continue
                others = self._done[id] | {name for (leased, name) in self._leases if leased == id and name != reviewer}
                if len(others) < self._wanted[id]:
                    self._leases[id, reviewer] = (tab, now + LEASE_SECONDS)
                    return item
            return None

    def item(self, id: str) -> Item:
        """Return an item by its id. Raises UserError when there is none."""
        if id not in self._items:
            raise UserError(f"There is no item '{id:.80}' in this review.")
        return self._items[id]

    def progress(self, reviewer: str) -> dict[str, int]:
        """Return how many items this reviewer and all reviewers have done, how many are open, and how many there are."""
        return {
            "own": sum(reviewer in names for names in self._done.values()),
            "all": sum(bool(names) for names in self._done.values()),
            "open": sum(len(names) < self._wanted[id] for id, names in self._done.items()),
            "items": len(self._items),
        }

    def submit(self, reviewer: str, sent: Mapping[str, Any]) -> None:
        """Keep what a reviewer decides on an item. A submission that is sent twice is kept once.

        Raises UserError when it is malformed, or when the item is no longer what the reviewer saw.
        """
        rows, ranking = _rows(self.item(_text(sent, "id")), reviewer, sent)
        with self._lock:
            if _text(sent, "key") in self._keys:
                return
            if ranking is not None and ranking["key"] not in self._ranked:
                self._rankings.append([ranking])
                self._ranked.add(ranking["key"])
            self._reviews.append(rows)
            for row in rows:
                self._note(row)
            self._leases.pop((rows[0]["id"], reviewer), None)


def _text(sent: Mapping[str, Any], name: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1000:
        raise UserError(f"A review needs the text `{name}`, not {value!r:.80}.")
    return value


def _rows(item: Item, reviewer: str, sent: Mapping[str, Any]) -> tuple[list[Record], Record | None]:
    """Return the rows of a submission: the verdict on the label, then those on paths; and the ranking of paths, if any."""
    if _text(sent, "seen") != item.seen:
        raise UserError(f"The item '{item.id}' has changed since it was shown; reload the page.")
    seconds = sent.get("seconds", 0)
    about = {
        "reviewer": reviewer,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1) if isinstance(seconds, int | float) and 0 <= seconds < 10**7 else None,
        "seen": item.seen,
        "key": _text(sent, "key"),
    }
    verdict = sent.get("verdict")
    if verdict not in VERDICTS:
        raise UserError(f"The verdict {verdict!r:.80} is not one of {', '.join(VERDICTS)}.")
    rows = [{"id": item.id, "path": None, "answer": item.answer, "verdict": verdict, "first_wrong_step": None, **about}]
    shown = {path["path"]: path for path in item.paths}
    marked = sent.get("paths", [])
    if not isinstance(marked, list) or not all(isinstance(each, dict) for each in marked):
        raise UserError(f"`paths` of a review must be a list of objects, not {marked!r:.80}.")
    for each in marked:
        path = shown.get(each.get("path")) if isinstance(each.get("path"), int) else None
        step, judged = each.get("first_wrong_step"), each.get("verdict")
        is_step = type(step) is int and path is not None and 0 <= step < len(path["steps"])
        if path is None or judged not in VERDICTS or (step is not None and not (is_step and judged == "wrong")):
            raise UserError(f"{each!r:.160} is no verdict on a path of '{item.id}'.")
        named = {"path": path["path"], "text_hash": fingerprint(path["text"])}
        rows.append({"id": item.id, **named, "verdict": judged, "first_wrong_step": step, **about})
    return rows, _ranking(item, shown, sent.get("ranks"), about)


def _ranking(item: Item, shown: Mapping[int, Record], ranks: Any, about: Record) -> Record | None:
    """Return a row of rankings.jsonl: answers to one prompt, with their ranks from the best, 1; ties are allowed.

    The last row of an annotator on an item counts. One without ranks takes an earlier ranking back.
    """
    if ranks is None:
        return None
    known = {str(number) for number in shown}
    if not isinstance(ranks, dict) or not all(
        number in known and type(rank) is int and 1 <= rank <= len(shown) for number, rank in ranks.items()
    ):
        raise UserError(f"`ranks` of a review must be ranks from 1 to {len(shown)} by path, not {ranks!r:.80}.")
    if len(ranks) == 1:
        ranks = {}
    paths = sorted(map(int, ranks))
    return {
        "id": item.id,
        "prompt": item.question,
        "choices": item.choices,
        "paths": paths,
        "answers": [shown[path]["text"] for path in paths],
        "ranks": [ranks[str(path)] for path in paths],
        "annotator": about["reviewer"],
        "source": "lmsi review",
        "time": about["time"],
        "key": about["key"],
    }
