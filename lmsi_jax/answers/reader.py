"""Read and judge the answers of a question's paths, in the same way for votes, scores, the report and the controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmsi_jax.answers import extract, spans
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, fingerprint


@dataclass(frozen=True)
class Answers:
    """The answers of a question's paths in row order. None abstains, and `reasons` gives the reason by position."""

    values: list[str | None]
    reasons: dict[int, str]


@dataclass(frozen=True)
class AnswerReader:
    """The rules for reading and judging the answers of a task."""

    answer_type: str
    labels: tuple[str, ...] = ()  # the only valid answers; () = all of the type
    extractor: int = extract.VERSION

    def read(self, rows: Sequence[Record], choices: Sequence[str] | None) -> Answers:
        """Read the answer of each path of a question. A path is a row with `text` and optionally `finish`.

        For a question with `choices`, a letter beyond its options is not an answer. Equivalent answers are replaced by the
        first of them, so that they count as the same vote.
        """
        labels = tuple(LETTERS[: len(choices)]) if choices and self.answer_type == "choice" else self.labels
        read = [extract.extract(row["text"], self.answer_type, row.get("finish", "stop"), allowed=labels) for row in rows]
        values = [answer.value if isinstance(answer, extract.Answer) else None for answer in read]
        reasons = {i: answer.reason for i, answer in enumerate(read) if isinstance(answer, extract.Abstention)}
        return Answers(extract.group(values, self.answer_type), reasons)

    def is_right(self, answer: str | None, accepted: Sequence[str]) -> bool:
        """Return whether an answer is equivalent to one of the accepted ones; None is never right."""
        if answer is None:
            return False
        if self.answer_type == "span":
            return spans.score(answer, accepted)[0]
        return any(extract.equivalent(answer, gold, self.answer_type) for gold in accepted)


def accepted_answers(question: Record) -> list[str]:
    """Return the accepted gold answers of a question: `answers`, or else the single `answer`."""
    return [str(answer) for answer in question.get("answers") or (question["answer"],)]


def answers_by_path(vote: Record) -> Mapping[int, str | None]:
    """Return the answers of a row of votes.jsonl by path number. Raises UserError when the row has no `answers`."""
    if "answers" not in vote:
        raise UserError(f"The vote of question '{vote.get('id')}' has no `answers` of its paths; vote again.")
    return dict(zip(vote.get("paths") or range(len(vote["answers"])), vote["answers"], strict=True))


def paths_hash(rows: Sequence[Record]) -> str:
    """Return 16 hex digits that identify the paths behind a vote, by their numbers, texts and finish reasons."""
    return fingerprint([[row["path"], row["text"], row.get("finish", "stop")] for row in rows])
