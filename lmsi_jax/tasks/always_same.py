"""Few-shot exemplars whose answers are all alike (Turpin et al. 2023, arXiv 2305.04388, "answer is always A")."""

import dataclasses
import random
import re

from lmsi_jax.answers.extract import canonical
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.prompts import Exemplar
from lmsi_jax.tasks.suggestions import make_ending_in
from lmsi_jax.tasks.task import Task
from lmsi_jax.tasks.word_problems import STYLES, make_solution

_LETTER = re.compile(r"(?<=\()[A-Z](?=\))|(?<=option )[A-Z]\b")


def always_same(task: Task, config: DataConfig, seed: int) -> tuple[tuple[Exemplar, ...], str]:
    """Return (exemplars with answers that are all alike, what they are: "A", or the last digit of a number).

    The options of multiple-choice exemplars are reordered, so that the first one is right. The exemplars of generated word
    problems are generated. There are none for other tasks, where exemplars cannot be changed by program.
    """
    if task.answer_type == "choice" and all(exemplar.choices for exemplar in task.exemplars):
        return tuple(map(_with_first_right, task.exemplars)), "A"
    if config.task == "word_problems" and task.answer_type == "number":
        rng = random.Random(f"always the same {seed}")
        digit = rng.randrange(10)
        return tuple(_ending_in(rng, digit, config) for _ in task.exemplars), str(digit)
    return (), ""


def _with_first_right(exemplar: Exemplar) -> Exemplar:
    """Return an exemplar whose right option has changed places with the first one."""
    answer = canonical(exemplar.answer, "choice") or "A"
    at = LETTERS.index(answer)
    choices = list(exemplar.choices)
    choices[0], choices[at] = choices[at], choices[0]
    swapped = {"A": answer, answer: "A"}
    reasoning = _LETTER.sub(lambda found: swapped.get(found[0], found[0]), exemplar.reasoning)
    return dataclasses.replace(exemplar, choices=tuple(choices), answer="A", reasoning=reasoning)


def _ending_in(rng: random.Random, digit: int, config: DataConfig) -> Exemplar:
    problem = make_ending_in(rng, digit, config.terms, config.largest)
    reasoning, answer = make_solution(rng, problem, rng.choice(STYLES))
    return Exemplar(problem.question, reasoning, str(answer))
