"""The items of a review: a question, its vote, and some of its paths with their steps. Gold answers are never read here."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from lmsi_jax.analysis.browser import marks, utf16_positions
from lmsi_jax.analysis.plan import read_plan
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, fingerprint, read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.stages.path_files import paths_by_question, read_votes
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.trust.reviews import BANDS, review_order

AGREEING, OTHER = 3, 1  # paths shown of an item: those that agree with the vote, and those that do not
LONGEST = 20_000  # characters of a path that are sent at first; the page asks for the rest


@dataclasses.dataclass(frozen=True)
class Item:
    """A question with its voted answer and the paths that are shown, in the order of the page.

    A path has `path`, `text`, `agrees`, `steps` ([start, end] each) and `marks` ([start, end, verdict, right value] each).
    Positions are in UTF-16 units, as the page counts.
    """

    id: str
    question: str
    choices: Sequence[str] | None
    answer: str
    share: float
    counts: Mapping[str, int]
    num_paths: int
    paths: Sequence[Record]

    @property
    def seen(self) -> str:
        """A hash of all that a reviewer sees."""
        paths = [[path[name] for name in ("path", "text", "agrees", "steps", "marks")] for path in self.paths]
        return fingerprint(self.id, self.question, self.choices, self.answer, dict(self.counts), paths)

    def payload(self) -> dict[str, Any]:
        """Return the item as the page gets it. A long path is cut, with its full length in `length`."""
        return {
            **{name: getattr(self, name) for name in ("id", "question", "choices", "answer", "num_paths", "seen")},
            "counts": list(self.counts.items()),
            "paths": [path_payload(path, LONGEST) for path in self.paths],
        }


def path_payload(path: Record, longest: int | None = None) -> dict[str, Any]:
    """Return the first `longest` characters of a path, or all of it, with the steps and the marks that begin there."""
    text = path["text"][:longest]
    units = utf16_positions(text, [len(text)])[len(text)]
    begins = {name: [span for span in path[name] if span[0] < units] for name in ("steps", "marks")}
    return {"path": path["path"], "text": text, "length": len(path["text"]), "agrees": path["agrees"], **begins}


def group_to_review(folder: RunFolder, group: str) -> str:
    """Return the group to review: the one that is named, or else the last one of the run that has votes."""
    groups = [name for name in read_plan(folder).groups if folder.votes(name).exists()]
    if group and group not in groups:
        raise UserError(f"--group={group} has no votes in {folder.root}; groups with votes: {', '.join(groups) or 'none'}.")
    if not groups:
        raise UserError(f"{folder.root} has no votes to review; run it up to its vote first (lmsi run --workdir=...).")
    return group or groups[-1]


def read_items(folder: RunFolder, group: str, seed: int, above: float = 0.0) -> list[Item]:
    """Return the labels of a group with a vote share above `above`, in the order of their review.

    Raises UserError unless `above` is 0 or separates two bands: only whole bands are random samples.
    """
    if above not in (0.0, *BANDS):
        raise UserError(f"--above={above:g} must be one of {', '.join(f'{limit:g}' for limit in (0, *BANDS))}.")
    votes = {id: vote for id, vote in read_votes(folder.votes(group)).items() if vote["answer"] is not None}
    shares = {id: vote["confidence"] for id, vote in votes.items() if vote["confidence"] > above}
    if not shares:
        raise UserError(
            f"No label of {folder.votes(group)} has a vote share above {above:g}; {len(votes)} questions are decided. Lower "
            f"--above."
        )
    questions = {row["id"]: row for row in load_questions(folder.questions)}
    steps: dict[tuple[str, int], Record] = {}
    if folder.steps(group).exists():
        steps = {(row["id"], row["path"]): row for row in read_jsonl(folder.steps(group)) if row["id"] in shares}
    items: dict[str, Item] = {}
    for rows in paths_by_question(folder.paths(group)):
        id = rows[0]["id"]
        if id in shares and id in questions:
            items[id] = _item(questions[id], votes[id], _shown(rows, votes[id], seed), steps)
    missing = sorted(set(shares) - set(items))
    if missing:
        raise UserError(
            f"Question '{missing[0]}' of {folder.votes(group)} is missing in {folder.paths(group)} or {folder.questions}; all "
            f"three must be from one run."
        )
    return [items[id] for id in review_order({id: vote["confidence"] for id, vote in votes.items()}, seed) if id in items]


def _shown(rows: Sequence[Record], vote: Record, seed: int) -> list[Record]:
    """Return some different paths that agree with the vote and some that do not, in random order."""
    draw, kept = random.Random(f"shown {seed} {vote['id']}"), set(vote["kept"])
    distinct = list({row["text"]: row for row in rows}.values())
    draw.shuffle(distinct)
    agreeing = [row for row in distinct if row["path"] in kept][:AGREEING]
    shown = agreeing + [row for row in distinct if row["path"] not in kept][:OTHER]
    draw.shuffle(shown)
    return [{"path": row["path"], "text": row["text"], "agrees": row["path"] in kept} for row in shown]


def _item(question: Record, vote: Record, shown: Sequence[Record], steps: Mapping[tuple[str, int], Record]) -> Item:
    paths = []
    for row in shown:
        checked = steps.get((vote["id"], row["path"]))
        spans = [[step["start"], step["end"]] for step in checked["steps"]] if checked else [[0, len(row["text"])]]
        at = utf16_positions(row["text"], [position for span in spans for position in span])
        spans = [[at[start], at[end]] for start, end in spans]
        paths.append({**row, "steps": spans, "marks": marks(row["text"], checked) if checked else []})
    about = (question["question"], question["choices"], vote["answer"], vote["confidence"], vote["counts"], vote["num_paths"])
    return Item(vote["id"], *about, paths)
