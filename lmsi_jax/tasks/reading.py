"""Reading the answers of a question's paths, and judging them: one way for votes, scores, the report and the controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, fingerprint
from lmsi_jax.tasks import answers, spans
from lmsi_jax.tasks.registry import Task


@dataclass(frozen=True)
class Reading:
    """What each path of a question votes for, in the order of its rows; None abstains, for the reason at its position."""

    answers: list[str | None]
    reasons: dict[int, str]


def read_answers(rows: Sequence[Record], task: Task, choices: Sequence[str] | None) -> Reading:
    """Read the answer of each path (a row with `text` and maybe `finish`) of a question with these options, if it has any.

    Equivalent answers are written alike, as the first of them is, so that they are one vote.
    """
    labels = task.asking(choices).labels
    read = [answers.extract(row["text"], task.answer_type, row.get("finish", "stop"), allowed=labels) for row in rows]
    values = [answer.value if isinstance(answer, answers.Answer) else None for answer in read]
    reasons = {i: answer.reason for i, answer in enumerate(read) if isinstance(answer, answers.Abstention)}
    return Reading(answers.group(values, task.answer_type), reasons)


def accepted_answers(question: Record) -> list[str]:
    """The gold answers of a question, any of which is right: `answers`, or else the one `answer`."""
    return [str(answer) for answer in question.get("answers") or (question["answer"],)]


def is_right(answer: str | None, accepted: Sequence[str], answer_type: str) -> bool:
    """Does an answer say the same as one of those that are accepted?"""
    if answer is None:
        return False
    if answer_type == "span":
        return spans.score(answer, accepted)[0]
    return any(answers.equivalent(answer, gold, answer_type) for gold in accepted)


def answers_by_path(vote: Record) -> Mapping[int, str | None]:
    """The answer of each path of a row of votes.jsonl, by the path's number."""
    if "answers" not in vote:
        raise UserError(f"The vote of question '{vote.get('id')}' does not hold the answers of its paths; vote again.")
    return dict(zip(vote.get("paths") or range(len(vote["answers"])), vote["answers"], strict=True))


def paths_hash(rows: Sequence[Record]) -> str:
    """16 hex digits that change with any text or number of a question's paths: what a vote was made from."""
    return fingerprint([[row["path"], row["text"], row.get("finish", "stop")] for row in rows])
