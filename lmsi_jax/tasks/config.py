"""Settings of questions, of prompts and of the generated corpus."""

import dataclasses
from typing import Literal

from lmsi_jax.core.settings import require, require_at_least, require_one_of, require_positive, require_share
from lmsi_jax.tasks.word_problems import FAMILIES
from lmsi_jax.trust.steps import CONTRACTS

COLUMNS = ("id", "question", "choices", "answer")  # what a row of questions has for us
NONE, OWN = "none", "self"  # no exemplars; questions or exemplars of the model's own


def _require_terms(terms: tuple[int, int], path: str) -> None:
    require(2 <= terms[0] <= terms[1] <= 10, f"{path}terms={terms} is not a range (fewest, most) within 2..10.")


@dataclasses.dataclass(frozen=True)
class QuestionConfig:
    """The source of the questions. Only evaluation and the audit read their gold answers."""

    task: str = "word_problems"  # word_problems, jsonl, or a data set of tasks/sets
    source: Literal["jsonl", "files", "tfds", "self"] = "jsonl"  # your files, a data set's own ones, TFDS; or see ProposeConfig
    folder: str = ""  # files: the published files, or a folder of them for each data set; tfds: "" = its default directory
    train_split: str = ""  # files, tfds: the split to train on; "" = the paper's
    eval_split: str = ""  # files, tfds: the split to score; "" = the paper's
    train_on_test: bool = False  # allow self-training on the questions that are scored
    skip_malformed: bool = False  # files, tfds: skip and count rows that cannot be read
    questions: str = ""  # jsonl: the file of unlabelled questions, or hf://datasets/ORG/NAME/CONFIG/SPLIT
    eval_questions: str = ""  # jsonl: that of held-out questions with answers; "" = no evaluation
    columns: dict[str, str] = dataclasses.field(default_factory=dict)  # jsonl: theirs for our id, question, choices, answer
    answer_type: Literal["", "number", "choice", "yes_no", "span", "math", "text"] = ""  # "" = the task's; jsonl: number
    num_questions: int = 0  # 0 = all of the file or split; required for word_problems; source=self: the given questions
    num_eval: int = 0  # the same for held-out questions
    terms: tuple[int, int] = (3, 6)  # word_problems: fewest and most quantities in a question
    largest: int = 99  # word_problems: the largest quantity that is not a product
    broken: float = 0.0  # share of the questions to train on that are broken on purpose, for experiments; see tasks/broken.py
    near_copies: float = 0.0  # questions to train on that are so similar to others are left out (tasks/near_copies.py); 0: none
    contract: tuple[str, ...] = ()  # jsonl: each_once, all_used: what holds for the solutions of all of your questions


@dataclasses.dataclass(frozen=True)
class ProposeConfig:
    """Questions that the model writes itself from a few given ones (section 3.3), if data.source is "self"."""

    shown: int = 5  # questions in the prompt of a proposal, drawn and shuffled
    proposals: int = 1000  # questions that are written in each pass
    passes: int = 1  # later passes also show questions that earlier ones kept
    temperature: float = 1.0
    max_tokens: int = 128  # per question
    similarity: float = 0.7  # a proposal that shares this part of its word trigrams with another question is a copy
    description: str = ""  # one sentence about the task, before the questions or in their place

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "shown", "proposals", "passes", "max_tokens")
        require_positive(self, path, "temperature")
        require(
            0 < self.similarity <= 1,
            f"{path}similarity={self.similarity} is not within (0, 1]; 1 refuses only questions of the same words.",
        )


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """The part of a prompt before its question."""

    exemplars: str = ""  # a JSONL file of few-shot exemplars; "" = the task's; none = zero-shot; self = written by the model
    shots: int = 0  # number of exemplars in the prompt; 0 = all, or 4 of the model's
    templates: int = 8  # exemplars=self: prompts with other exemplars, over which the paths of a question are spread
    chat: bool = False  # use the model's chat template, for instruction-tuned models


@dataclasses.dataclass(frozen=True)
class DataConfig(QuestionConfig, PromptConfig):
    """Questions and their prompts."""

    def check(self, path: str) -> None:
        _require_terms(self.terms, path)
        require_share(self, path, "broken", "near_copies")
        for name in self.contract:
            require_one_of(f"{path}contract", name, CONTRACTS)
        for name in self.columns:
            require_one_of(f"{path}columns", name, COLUMNS)
        require_at_least(1, self, path, "templates")
        require(self.largest >= 9, f"{path}largest={self.largest}: quantities need room; set it to 9 or more.")
        for name in ("num_questions", "num_eval", "shots"):
            require(getattr(self, name) >= 0, f"{path}{name}={getattr(self, name)} is negative; set it to 0 for all.")


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """The generated English text that the built-in model is trained on (tasks/word_corpus.py)."""

    documents: int = 100_000
    terms: tuple[int, int] = (2, 4)
    largest: int = 99
    families: tuple[str, ...] = FAMILIES  # of problems (tasks/word_problems.py); without one, a model lacks its operation
    sloppy: float = 0.4  # share of documents whose writer makes mistakes
    mistake: float = 0.25  # share of a sloppy writer's solutions with a mistake
    suggestions: float = 0.0  # share of documents in which answers are suggested (tasks/suggestions.py)
    obliging: float = 0.7  # share of their writers who follow a suggestion
    candid: float = 0.0  # share of their writers who say what they do with a suggestion

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "documents")
        require(bool(self.families), f"{path}families is empty; name some of {', '.join(FAMILIES)}.")
        for name in self.families:
            require_one_of(f"{path}families", name, FAMILIES)
        _require_terms(self.terms, path)
        require_share(self, path, "sloppy", "mistake", "suggestions", "obliging", "candid")
