"""Tasks: where questions come from, their exemplars and the type of their answers."""

import dataclasses
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmsi_jax.core.config import DataConfig
from lmsi_jax.core.errors import UserError, nearest
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.tasks.answers import TYPES, canonical
from lmsi_jax.tasks.dataset import LETTERS, Dataset
from lmsi_jax.tasks.prompts import Exemplar
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.tasks.source import load_split
from lmsi_jax.tasks.word_problems import make_problem

EXEMPLARS = Path(__file__).parent / "exemplars"
TYPE_EXEMPLARS = {"span": "drop"}  # types whose exemplars stand in the file of another
OWN = ("word_problems", "jsonl")  # generated here, and anybody's


@dataclasses.dataclass(frozen=True)
class Task:
    """What the stages need to know of a data set."""

    name: str
    answer_type: str
    exemplars: tuple[Exemplar, ...]
    labels: tuple[str, ...] = ()  # the answers there can be; () = all of the type

    def asking(self, choices: Sequence[str] | None) -> "Task":
        """The task for one question: a letter that none of its options has is no answer."""
        if self.answer_type != "choice" or not choices:
            return self
        return dataclasses.replace(self, labels=tuple(LETTERS[: len(choices)]))


def dataset(config: DataConfig) -> Dataset | None:
    """The published data set of a config; None for generated questions and for anybody's."""
    if config.task in OWN:
        return None
    if config.task not in DATASETS:
        known = (*OWN, *DATASETS)
        near = nearest(config.task, known)
        raise UserError(f"data.task='{config.task}' is not known; the nearest is '{near}'. There are: {', '.join(known)}.")
    found = DATASETS[config.task]
    if config.answer_type and config.answer_type != found.answer_type:
        raise UserError(
            f"data.answer_type='{config.answer_type}', and the answers of {found.name} are of type '{found.answer_type}'; "
            f"leave it out."
        )
    return found


def answer_type(config: DataConfig) -> str:
    """The type of a task's answers."""
    found = dataset(config)
    return found.answer_type if found else config.answer_type or "number"


def task_type(config: DataConfig) -> Task:
    """The task without its exemplars: what it takes to read answers."""
    found = dataset(config)
    return Task(config.task, answer_type(config), (), found.labels if found else ())


def load_task(config: DataConfig) -> Task:
    """The task of a config, with its own exemplars or the user's."""
    found, task = dataset(config), task_type(config)
    kind = task.answer_type
    own = found.exemplars if found else "word_problems" if config.task == "word_problems" else TYPE_EXEMPLARS.get(kind, kind)
    exemplars = load_exemplars(config.exemplars or EXEMPLARS / f"{own}.jsonl", kind)
    if config.shots > len(exemplars):
        raise UserError(
            f"data.shots={config.shots}, and there are {len(exemplars)} exemplars; lower it, or name a larger file with "
            f"--config.data.exemplars."
        )
    return dataclasses.replace(task, exemplars=exemplars[: config.shots or None])


def load_exemplars(path: os.PathLike | str, answer_type: str) -> tuple[Exemplar, ...]:
    """Few-shot exemplars: JSON Lines with question, choices, reasoning, answer."""
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


def training_questions(config: DataConfig, seed: int) -> list[Record]:
    """The unlabelled questions of a run: `id`, `question`, `choices` and, if the source has it, `answer`."""
    if config.task == "word_problems":
        if not (config.num_questions and config.num_eval):
            raise UserError(
                f"data.num_questions={config.num_questions} and data.num_eval={config.num_eval} must both be at least 1: the "
                f"task 'word_problems' makes its questions, so it has to be told how many."
            )
        return list(_generated(config, seed, "train", config.num_questions))
    found = dataset(config)
    if config.source == "jsonl" or found is None:
        if not config.questions:
            raise UserError(
                f"data.task='{config.task}' needs a question file; set --config.data.questions=FILE.jsonl"
                + (", or --config.data.source=files or tfds." if found else ".")
            )
        if config.questions == config.eval_questions and not config.train_on_test:
            raise UserError(
                f"data.questions and data.eval_questions are both {config.questions}; a score on questions that were trained "
                f"on is no test. If that is what you want, say --config.data.train_on_test=True."
            )
        return _limited(load_questions(config.questions), config.num_questions)
    split = config.train_split or found.train
    if not split:
        raise UserError(
            f"The paper only tests on {found.name}, which has no split for self-training here; name one with "
            f"--config.data.train_split ({', '.join(found.files)})."
        )
    if split in (found.test, _eval_split(config, found)) and not config.train_on_test:
        raise UserError(
            f"The split '{split}' of {found.name} is the one that is scored; training on its questions, even unlabelled, makes "
            f"the score worthless as a test. If that is what you want, say --config.data.train_on_test=True."
        )
    return _drawn(_split(config, found, split), config.num_questions, f"{seed} {split}")


def held_out_questions(config: DataConfig, seed: int) -> list[Record]:
    """Questions with gold answers for evaluation; none when the config names no file."""
    if config.task == "word_problems":
        trained_on = {row["question"] for row in training_questions(config, seed)}
        return list(_generated(config, seed, "held-out", config.num_eval, trained_on))
    found = dataset(config)
    if found and config.source != "jsonl":
        split = _eval_split(config, found)
        questions, where = _drawn(_split(config, found, split), config.num_eval, f"{seed} {split}"), f"{found.name} {split}"
    elif config.eval_questions:
        questions, where = _limited(load_questions(config.eval_questions), config.num_eval), config.eval_questions
    else:
        return []
    check_gold(questions, answer_type(config), where)
    return questions


def check_gold(questions: Sequence[Record], answer_type: str, where: str) -> None:
    """Raise UserError when a question that is to be scored has no answer, or one of another type."""
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


def is_scored(config: DataConfig) -> bool:
    """Has the task held-out questions?"""
    return (
        config.task == "word_problems" or bool(config.eval_questions) or (config.task != "jsonl" and config.source != "jsonl")
    )


def _eval_split(config: DataConfig, found: Dataset) -> str:
    return config.eval_split or found.test


def _split(config: DataConfig, found: Dataset, split: str) -> list[Record]:
    return load_split(found, split, config.source, config.folder, skip_malformed=config.skip_malformed)


def _limited(questions: list[Record], limit: int) -> list[Record]:
    if limit > len(questions):
        raise UserError(f"{limit} questions are asked for, and the file holds {len(questions)}; set 0 to take them all.")
    return questions[: limit or None]


def _drawn(questions: list[Record], limit: int, seed: str) -> list[Record]:
    """`limit` questions from all of a split, in its order: neighbours are often about one passage."""
    wanted = len(_limited(questions, limit))
    chosen = sorted(random.Random(seed).sample(range(len(questions)), wanted))
    return [questions[i] for i in chosen]


def _generated(config: DataConfig, seed: int, split: str, count: int, taken: Iterable[str] = ()) -> Iterator[Record]:
    seen = set(taken)
    for number in range(count):
        rng = random.Random(f"questions {seed} {split} {number}")
        for _ in range(1000):
            problem = make_problem(rng, config.terms, config.largest)
            if problem.question not in seen:
                break
        else:
            raise UserError(
                f"There are not {count} different questions with data.terms={config.terms} and data.largest="
                f"{config.largest}; raise one of them, or ask for fewer."
            )
        seen.add(problem.question)
        yield {
            "id": f"{split}-{number:05d}",
            "question": problem.question,
            "choices": None,
            "answer": str(problem.answer),
            "terms": len(problem.terms),
        }


def load_questions(path: os.PathLike | str) -> list[Record]:
    """A question file: JSON Lines with `id`, `question` and optionally `choices` and `answer`.

    Raises UserError with file, row and field when a row is malformed or an id comes twice.
    """
    questions: list[Record] = []
    rows: dict[str, int] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        where = f"{path} row {number}"
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise UserError(f"{where}: no text in the field `question`; it has {', '.join(row) or 'no fields'}.")
        row.setdefault("id", str(number))
        row.setdefault("choices", None)
        id, choices = row["id"], row["choices"]
        if not isinstance(id, str) or not id:
            raise UserError(f"{where}: `id` is {id!r:.60}; it must be a string that no other row has.")
        if id in rows:
            raise UserError(f"{where}: the id '{id}' is that of row {rows[id]} too; paths are told apart by id.")
        if not isinstance(row.get("answers", []), list):
            raise UserError(f"{where}: `answers` must be a list of all that are right, not {row['answers']!r:.60}.")
        if choices is not None and (
            not isinstance(choices, list) or not 2 <= len(choices) <= 26 or not all(isinstance(c, str) for c in choices)
        ):
            raise UserError(f"{where}: `choices` must be null or a list of 2 to 26 option texts, not {choices!r:.80}.")
        rows[id] = number
        questions.append(row)
    if not questions:
        raise UserError(f"{path} holds no questions; each line must be a JSON object with `id` and `question`.")
    return questions
