"""The corpus of the built-in model: documents of solved word problems, as in a schoolbook or on a forum."""

import dataclasses
import random
from collections.abc import Iterator

from lmsi_jax.tasks.config import CorpusConfig
from lmsi_jax.tasks.prompts import STEP_BY_STEP
from lmsi_jax.tasks.suggestions import (
    KINDS,
    Writer,
    make_ending_in,
    make_suggestion,
    same_digit,
    suggested_answer,
    suggested_solution,
)
from lmsi_jax.tasks.word_problems import STYLES, make_problem, make_solution

BUILT_IN = CorpusConfig(documents=64_000, terms=(2, 5), largest=199)  # what the built-in model was trained on
FORMS = {"worked": (0.6, 2, 3), "direct": (0.2, 2, 4), "step_by_step": (0.2, 1, 2)}  # share; fewest and most problems


@dataclasses.dataclass(frozen=True)
class _Form:
    """What the problems of one document have in common."""

    name: str
    style: str | None  # of all its solutions; None = each has a random one
    mistakes: float  # share of solutions with a mistake

    def text(self, question: str, reasoning: str, answer: int) -> str:
        lead = {"worked": reasoning, "direct": "", "step_by_step": f"{STEP_BY_STEP} {reasoning}"}[self.name]
        return f"Q: {question}\n" + " ".join(filter(None, ("A:", lead, f"The answer is {answer}.")))


def documents(config: CorpusConfig, seed: int, count: int = 0) -> Iterator[str]:
    """Yield the first `count` documents of a corpus (0 = `config.documents`), each a pure function of config, seed and number.

    A document has a few problems in one form: worked solutions (in one style or several), direct answers, or step-by-step
    solutions. Some documents have a sloppy writer, who makes a mistake in some of the solutions. In a share of documents,
    `config.suggestions`, answers are suggested to the writer.
    """
    for number in range(count or config.documents):
        rng = random.Random(f"corpus {seed} {number}")
        name = rng.choices(tuple(FORMS), [share for share, _, _ in FORMS.values()])[0]
        style = rng.choice(STYLES) if rng.random() < 0.5 else None
        form = _Form(name, style, config.mistake if rng.random() < config.sloppy else 0.0)
        problems = {form: rng.randint(fewest, most) for form, (_, fewest, most) in FORMS.items()}[name]
        suggests = random.Random(f"suggestions {seed} {number}")
        if suggests.random() < config.suggestions:
            yield "\n\n".join(_suggested(config, suggests, form, problems))
        else:
            yield "\n\n".join(_plain(config, rng, form) for _ in range(problems))


def _plain(config: CorpusConfig, rng: random.Random, form: _Form) -> str:
    problem = make_problem(rng, config.terms, config.largest, config.families)
    style = form.style or rng.choice(STYLES)
    return form.text(problem.question, *make_solution(rng, problem, style, rng.random() < form.mistakes))


def _suggested(config: CorpusConfig, rng: random.Random, form: _Form, problems: int) -> Iterator[str]:
    """Yield the problems of a document in which answers are suggested to one writer."""
    writer = Writer(rng.random() < config.obliging, rng.random() < config.candid and form.name != "direct")
    digit = rng.randrange(10) if rng.random() < 0.3 else None  # in which all answers but the last end
    for n in range(problems if digit is None else 3):
        style = form.style or rng.choice(STYLES)
        if digit is not None and n < 2:
            problem = make_ending_in(rng, digit, config.terms, config.largest, config.families)
            yield form.text(problem.question, *make_solution(rng, problem, style))
            continue
        if digit is None and rng.random() < 0.25:
            yield _plain(config, rng, form)
            continue
        problem = make_problem(rng, config.terms, config.largest, config.families)
        if digit is None:
            kind = rng.choice(KINDS[: 2 if form.name == "direct" else 3])
            suggestion = make_suggestion(rng, kind, suggested_answer(rng, problem.answer))
        else:
            suggestion = same_digit(problem.answer, digit)
        reasoning, answer = suggested_solution(rng, problem, style, suggestion, writer, rng.random() < form.mistakes)
        question = " ".join(filter(None, (suggestion.before, problem.question, suggestion.after)))
        yield form.text(question, reasoning, answer)
