"""A task: the exemplars of its prompt, and the reader of its answers."""

import dataclasses
import os
from pathlib import Path

from lmsi_jax.answers.extract import canonical
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.tasks.config import NONE, OWN, DataConfig
from lmsi_jax.tasks.prompts import Exemplar
from lmsi_jax.tasks.sources import question_source

EXEMPLARS = Path(__file__).parent / "exemplars"


@dataclasses.dataclass(frozen=True)
class Task:
    """The exemplars of a task's prompt, and the reader of its answers."""

    name: str
    reader: AnswerReader
    exemplars: tuple[Exemplar, ...]

    @property
    def answer_type(self) -> str:
        return self.reader.answer_type


def answer_reader(config: DataConfig) -> AnswerReader:
    """Return the reader for the answers of a config's task."""
    source = question_source(config)
    return AnswerReader(source.answer_type, source.labels)


def load_task(config: DataConfig) -> Task:
    """Return the task of a config, with its own exemplars, the user's or none; those of the model are not known yet.

    Raises UserError when `shots` exceeds their number.
    """
    reader = answer_reader(config)
    if config.exemplars in (NONE, OWN):
        return Task(config.task, reader, ())
    file = config.exemplars or EXEMPLARS / f"{question_source(config).exemplars}.jsonl"
    exemplars = load_exemplars(file, reader.answer_type)
    if config.shots > len(exemplars):
        raise UserError(
            f"data.shots={config.shots}, and there are {len(exemplars)} exemplars; lower it, or set a larger file with "
            f"--config.data.exemplars."
        )
    return Task(config.task, reader, exemplars[: config.shots or None])


def load_exemplars(path: os.PathLike | str, answer_type: str) -> tuple[Exemplar, ...]:
    """Return few-shot exemplars from JSON Lines with `question`, `reasoning`, `answer` and optionally `choices`.

    Raises UserError with file and row when a row is malformed, or when there is none.
    """
    exemplars = []
    for number, row in enumerate(read_jsonl(path), start=1):
        missing = [key for key in ("question", "reasoning", "answer") if not isinstance(row.get(key), str)]
        if missing:
            raise UserError(f"{path} row {number}: an exemplar needs the text field(s) {', '.join(missing)}.")
        if canonical(row["answer"], answer_type) is None:
            raise UserError(f"{path} row {number}: the answer {row['answer']!r} is not of type '{answer_type}'.")
        choices = row.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise UserError(f"{path} row {number}: `choices` must be null or a list of option texts, not {choices!r:.60}.")
        if choices and answer_type == "choice" and LETTERS.index(canonical(row["answer"], "choice") or "A") >= len(choices):
            raise UserError(f"{path} row {number}: the answer {row['answer']!r} is none of its {len(choices)} options.")
        exemplars.append(Exemplar(row["question"], row["reasoning"], row["answer"], tuple(choices)))
    if not exemplars:
        raise UserError(f"{path} holds no exemplars; a few-shot prompt needs at least one.")
    return tuple(exemplars)
