"""Question files: JSON Lines with `id`, `question` and optionally `choices` and `answer`."""

import os
from collections.abc import Iterable, Sequence

from lmsi_jax.answers.extract import TYPES, canonical
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, read_jsonl

GOLD = ("answer", "answers", "rationale")  # fields of a question that no stage of a round may see


def load_questions(path: os.PathLike | str) -> list[Record]:
    """Return the checked questions of a JSON Lines file."""
    return checked_questions(((f"{path} row {number}", row) for number, row in enumerate(read_jsonl(path), 1)), str(path))


def checked_questions(numbered: Iterable[tuple[str, Record]], name: str) -> list[Record]:
    """Return questions, given as (where it is, row). A row without `id` gets its number, one without `choices` gets None.

    Raises UserError with place and field when a row is malformed, when an id occurs twice, or when there is none.
    """
    questions: list[Record] = []
    rows: dict[str, int] = {}
    for number, (where, row) in enumerate(numbered, start=1):
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise UserError(f"{where}: no text in the field `question`; it has {', '.join(row) or 'no fields'}.")
        row.setdefault("id", str(number))
        row.setdefault("choices", None)
        id, choices = row["id"], row["choices"]
        if not isinstance(id, str) or not id:
            raise UserError(f"{where}: `id` is {id!r:.60}; it must be a string that no other row has.")
        if id in rows:
            raise UserError(f"{where}: the id '{id}' is that of row {rows[id]} too; paths are matched to questions by id.")
        if not isinstance(row.get("answers", []), list):
            raise UserError(f"{where}: `answers` must be a list of all accepted answers, not {row['answers']!r:.60}.")
        if choices is not None and (
            not isinstance(choices, list)
            or not 2 <= len(choices) <= len(LETTERS)
            or not all(isinstance(c, str) for c in choices)
        ):
            raise UserError(
                f"{where}: `choices` must be null or a list of 2 to {len(LETTERS)} option texts, not {choices!r:.80}."
            )
        rows[id] = number
        questions.append(row)
    if not questions:
        raise UserError(f"{name} holds no questions; each line must be a JSON object with `id` and `question`.")
    return questions


def first_questions(questions: list[Record], limit: int) -> list[Record]:
    """Return the first `limit` questions, or all of them when `limit` is 0. Raises UserError when there are fewer."""
    if limit > len(questions):
        raise UserError(f"{limit} questions are requested, and there are {len(questions)}; set the number to 0 for all.")
    return questions[: limit or None]


def check_gold(questions: Sequence[Record], answer_type: str, where: str) -> None:
    """Raise UserError when a question to be scored has no answer, or one that is not of `answer_type`."""
    for row in questions:
        if row.get("answer") is None:
            raise UserError(
                f"{where}: question '{row['id']}' has no `answer`; held-out questions are scored, so each needs one. Leave "
                f"--config.data.eval_questions empty to run without evaluation."
            )
        if canonical(str(row["answer"]), answer_type) is None:
            raise UserError(
                f"{where}: question '{row['id']}' has the answer {row['answer']!r}, which is not of type "
                f"'{answer_type}'; set --config.data.answer_type to {', '.join(TYPES)}."
            )
