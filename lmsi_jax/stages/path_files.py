"""Reads and validates paths.jsonl and votes.jsonl, which any program may have written."""

from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, finite, read_jsonl

PATH_FIELDS = {"id": str, "path": int, "text": str}


def read_paths(file: epath.Path, fields: Iterable[str] = PATH_FIELDS) -> Iterator[Record]:
    """Yield the rows of a file of paths. Raises UserError when one of `fields` is missing or `finish` is not text."""
    for row in read_jsonl(file):
        if row.get("finish", "") is None:  # some programs write null for unknown
            del row["finish"]
        for field in fields:
            if type(row.get(field)) is not PATH_FIELDS[field]:  # not isinstance: True is not a path number
                raise UserError(f"{file}: a path needs `{field}` ({PATH_FIELDS[field].__name__}); this row has {row!r:.120}.")
        if not isinstance(row.get("finish", "stop"), str):
            raise UserError(
                f'{file}: `finish` of a path is {row["finish"]!r:.60}; it must be "length" if the text was cut off, "stop" '
                f"if it ended by itself, and left out if that is unknown."
            )
        yield row


def paths_by_question(file: epath.Path) -> Iterator[list[Record]]:
    """Yield the paths of each question in path order. Raises UserError when the file has no paths or one occurs twice."""
    questions: dict[str, list[Record]] = {}
    for row in read_paths(file):
        questions.setdefault(row["id"], []).append(row)
    if not questions:
        raise UserError(f"{file} contains no paths; run the sample stage first.")
    for id, rows in questions.items():
        numbers = [row["path"] for row in rows]
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in numbers if numbers.count(number) > 1)
            raise UserError(f"{file}: question '{id}' has path {twice} more than once; each path may vote once.")
        yield sorted(rows, key=lambda row: row["path"])


def read_votes(file: epath.Path) -> dict[str, Record]:
    """Return the votes of a file by question id. Raises UserError when the vote stage cannot have written a row."""
    votes: dict[str, Record] = {}
    for row in read_jsonl(file):
        texts, lists = ("id", "paths_hash"), {"answers": str | None, "kept": int, "abstained": dict}
        wrong = [field for field in texts if not isinstance(row.get(field), str)]
        wrong += [field for field, item in lists.items() if not _is_list(row.get(field), item)]
        wrong += ["answer"] if "answer" not in row or not isinstance(row["answer"], str | None) else []
        wrong += ["confidence"] if finite(row.get("confidence")) is None else []
        if wrong:
            raise UserError(
                f"{file}: the vote of question {row.get('id')!r:.60} has the `{wrong[0]}` {row.get(wrong[0])!r:.60}, which "
                f"lmsi does not write; vote again."
            )
        if row["id"] in votes:
            raise UserError(f"{file}: question '{row['id']}' has more than one vote; vote again.")
        votes[row["id"]] = row
    return votes


def _is_list(value: Any, item: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, item) for each in value)
