"""Sources of questions: classes with the protocol `QuestionSource`, listed in `SOURCES` or made for a published data set."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, runtime_checkable

from lmsi_jax.core.errors import UserError, unknown
from lmsi_jax.core.records import Record
from lmsi_jax.tasks.config import OWN, QuestionConfig
from lmsi_jax.tasks.dataset import Dataset
from lmsi_jax.tasks.other_problems import make_other_problem
from lmsi_jax.tasks.question_files import load_question_files, question_files
from lmsi_jax.tasks.questions import check_gold, first_questions
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.tasks.splits import load_split
from lmsi_jax.tasks.word_problems import Problem, make_problem
from lmsi_jax.tasks.word_reading import read_problem

TYPE_EXEMPLARS = {"span": "drop"}  # answer types that use the exemplars of a data set


@runtime_checkable
class QuestionSource(Protocol):
    """Questions to train on and to score, with the answer type, the valid answers and the exemplars of their task.

    Both methods return records with `id`, `question`, `choices` and, where the source has it, `answer`.
    """

    answer_type: str
    labels: tuple[str, ...]  # the only valid answers; () = all of the type
    exemplars: str  # name of a file in tasks/exemplars, without its suffix
    contract: tuple[str, ...]  # checks that hold for the solutions of all questions; see trust/steps.py
    is_scored: bool  # whether there are held-out questions with gold answers

    def training(self, seed: int) -> list[Record]:
        """Return the questions of a run to train on. Training never reads their answers."""
        ...

    def held_out(self, seed: int) -> list[Record]:
        """Return the questions with gold answers for evaluation, or none when the source is not scored."""
        ...

    def solve(self, question: str) -> str | None:
        """Return the answer of a question that a model wrote, for the audit; None where no program can tell."""
        ...


class WordProblems:
    """Generated English word problems (tasks/word_problems.py), as many as the config sets."""

    contract: tuple[str, ...] = ("each_once", "all_used")

    def __init__(self, config: QuestionConfig):
        self._config, self.exemplars, self.is_scored = config, "word_problems", True
        self.labels: tuple[str, ...] = ()
        self.answer_type: str = config.answer_type or "number"

    def training(self, seed: int) -> list[Record]:
        config = self._config
        if config.source == OWN and config.num_eval and not config.num_questions:
            return []
        if not (config.num_questions and config.num_eval):
            raise UserError(
                f"data.num_questions={config.num_questions} and data.num_eval={config.num_eval} must both be at least 1: the "
                f"task '{config.task}' generates its questions, so both numbers are required."
            )
        return list(self._generated(seed, "train", config.num_questions))

    def held_out(self, seed: int) -> list[Record]:
        trained_on = {row["question"] for row in self.training(seed)}
        return list(self._generated(seed, "held-out", self._config.num_eval, trained_on))

    def solve(self, question: str) -> str | None:
        problem = read_problem(question)
        return None if problem is None else str(problem.answer)

    def _make(self, rng: random.Random, terms: tuple[int, int], largest: int) -> Problem:
        return make_problem(rng, terms, largest)

    def _generated(self, seed: int, split: str, count: int, taken: Iterable[str] = ()) -> Iterator[Record]:
        config, seen = self._config, set(taken)
        for number in range(count):
            rng = random.Random(f"questions {seed} {split} {number}")
            for _ in range(1000):
                problem = self._make(rng, config.terms, config.largest)
                if problem.question not in seen:
                    break
            else:
                raise UserError(
                    f"There are not {count} different questions with data.terms={config.terms} and data.largest="
                    f"{config.largest}; raise one of them, or lower the number of questions."
                )
            seen.add(problem.question)
            yield {
                "id": f"{split}-{number:05d}",
                "question": problem.question,
                "choices": None,
                "answer": str(problem.answer),
                "terms": len(problem.terms),
            }


class ListProblems(WordProblems):
    """Word problems that add several quantities."""

    families: tuple[str, ...] = ("place", "days", "people")

    def _make(self, rng: random.Random, terms: tuple[int, int], largest: int) -> Problem:
        return make_problem(rng, terms, largest, self.families)


class StoryProblems(ListProblems):
    """Word problems in which somebody gets some things, and may lose others."""

    families = ("story",)


class BoxProblems(ListProblems):
    """Word problems with boxes of several things each."""

    families = ("boxes",)


class LongerWordProblems(WordProblems):
    """Word problems with more quantities than `data.terms` has: one to three more than the most, and at most ten."""

    def _make(self, rng: random.Random, terms: tuple[int, int], largest: int) -> Problem:
        most = min(terms[1], 7)  # families with as few as 7 names would repeat themselves beyond that
        while True:
            problem = make_problem(rng, (most + 1, min(most + 3, 10)), largest)
            if len(problem.terms) > most:
                return problem


class OtherWordProblems(WordProblems):
    """Word problems of families that the corpus of the built-in model does not have (tasks/other_problems.py)."""

    contract: tuple[str, ...] = ()

    def solve(self, question: str) -> str | None:
        return None

    def _make(self, rng: random.Random, terms: tuple[int, int], largest: int) -> Problem:
        return make_other_problem(rng, terms, largest)


class QuestionFiles:
    """Your questions, in files or on the hub, or those of a published data set with its exemplars and answer type."""

    def __init__(self, config: QuestionConfig, dataset: Dataset | None = None):
        self._config, self._dataset = config, dataset
        self.answer_type: str = dataset.answer_type if dataset else config.answer_type or "number"
        self.labels: tuple[str, ...] = dataset.labels if dataset else ()
        self.exemplars = dataset.exemplars if dataset else TYPE_EXEMPLARS.get(self.answer_type, self.answer_type)
        self.is_scored = bool(config.eval_questions)
        self.contract: tuple[str, ...] = config.contract

    def training(self, seed: int) -> list[Record]:
        config = self._config
        if config.source == OWN and not config.questions:
            return []
        if not config.questions:
            raise UserError(
                f"data.task='{config.task}' needs a question file; set --config.data.questions=FILE.jsonl"
                + (", or --config.data.source=files or tfds." if self._dataset else ".")
            )
        if config.questions == config.eval_questions and not config.train_on_test:
            raise UserError(
                f"data.questions and data.eval_questions are both {config.questions}; a score on questions that were trained "
                f"on is no test. If you do want this, set --config.data.train_on_test=True."
            )
        return first_questions(self._load(config.questions), config.num_questions)

    def held_out(self, seed: int) -> list[Record]:
        config = self._config
        if not config.eval_questions:
            return []
        questions = first_questions(self._load(config.eval_questions), config.num_eval)
        check_gold(questions, self.answer_type, config.eval_questions)
        return questions

    def _load(self, name: str) -> list[Record]:
        return load_question_files(question_files(name), self._config.columns, self.answer_type, name)

    def solve(self, question: str) -> str | None:
        return None


class PublishedSet:
    """A published data set, from its own files or from TensorFlow Datasets."""

    def __init__(self, config: QuestionConfig, dataset: Dataset):
        self._config, self._dataset, self.is_scored = config, dataset, True
        self.answer_type: str = dataset.answer_type
        self.labels, self.exemplars = dataset.labels, dataset.exemplars
        self._test = config.eval_split or dataset.test
        self.contract: tuple[str, ...] = ()

    def training(self, seed: int) -> list[Record]:
        config, dataset = self._config, self._dataset
        split = config.train_split or dataset.train
        if not split:
            raise UserError(
                f"The paper only tests on {dataset.name}, which has no split for self-training here; name one with "
                f"--config.data.train_split ({', '.join(dataset.files)})."
            )
        if split in (dataset.test, self._test) and not config.train_on_test:
            raise UserError(
                f"The split '{split}' of {dataset.name} is the one that is scored; training on its questions, even unlabelled, "
                f"makes the score worthless as a test. If you do want this, set --config.data.train_on_test=True."
            )
        return self._drawn(split, config.num_questions, seed)

    def held_out(self, seed: int) -> list[Record]:
        questions = self._drawn(self._test, self._config.num_eval, seed)
        check_gold(questions, self.answer_type, f"{self._dataset.name} {self._test}")
        return questions

    def solve(self, question: str) -> str | None:
        return None

    def _drawn(self, split: str, limit: int, seed: int) -> list[Record]:
        """Return `limit` questions sampled from the full split, in its order, because neighbours often share a passage."""
        config = self._config
        questions = load_split(self._dataset, split, config.source, config.folder, skip_malformed=config.skip_malformed)
        count = len(first_questions(questions, limit))
        chosen = sorted(random.Random(f"{seed} {split}").sample(range(len(questions)), count))
        return [questions[i] for i in chosen]


SOURCES: dict[str, Callable[[QuestionConfig], QuestionSource]] = {
    "word_problems": WordProblems,
    "list_problems": ListProblems,
    "story_problems": StoryProblems,
    "box_problems": BoxProblems,
    "longer_word_problems": LongerWordProblems,
    "other_word_problems": OtherWordProblems,
    "jsonl": QuestionFiles,
}


def question_source(config: QuestionConfig) -> QuestionSource:
    """Return the source that `config.task` names. Raises UserError for an unknown task or an answer type that does not fit."""
    if config.task in SOURCES:
        return SOURCES[config.task](config)
    if config.task not in DATASETS:
        raise unknown("data.task", config.task, (*SOURCES, *DATASETS))
    dataset = DATASETS[config.task]
    if config.answer_type and config.answer_type != dataset.answer_type:
        raise UserError(
            f"data.answer_type='{config.answer_type}', and the answers of {dataset.name} are of type '{dataset.answer_type}'; "
            f"leave data.answer_type empty."
        )
    return QuestionFiles(config, dataset) if config.source in ("jsonl", OWN) else PublishedSet(config, dataset)
