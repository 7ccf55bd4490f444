"""The corpus of the built-in model: documents of solved word problems, as in a schoolbook or on a forum."""

import random
from collections.abc import Iterator

from lmsi_jax.tasks.config import CorpusConfig
from lmsi_jax.tasks.prompts import STEP_BY_STEP
from lmsi_jax.tasks.word_problems import STYLES, make_problem, make_solution


def documents(config: CorpusConfig, seed: int, count: int = 0) -> Iterator[str]:
    """Yield the first `count` documents of a corpus (0 = `config.documents`), each a pure function of config, seed and number.

    A document has a few problems in one form: worked solutions (in one style or several), direct answers, or step-by-step
    solutions. Some documents have a sloppy writer, who makes a mistake in some of the solutions.
    """
    for number in range(count or config.documents):
        rng = random.Random(f"corpus {seed} {number}")
        form = rng.choices(("worked", "direct", "step_by_step"), (0.6, 0.2, 0.2))[0]
        one_style = rng.choice(STYLES) if rng.random() < 0.5 else None
        mistakes = config.mistake if rng.random() < config.sloppy else 0.0
        count = {"worked": rng.randint(2, 3), "direct": rng.randint(2, 4), "step_by_step": rng.randint(1, 2)}[form]
        problems = []
        for _ in range(count):
            problem = make_problem(rng, config.terms, config.largest)
            style = one_style or rng.choice(STYLES)
            reasoning, answer = make_solution(rng, problem, style, rng.random() < mistakes)
            lead = {"worked": reasoning, "direct": "", "step_by_step": f"{STEP_BY_STEP} {reasoning}"}[form]
            text = " ".join(filter(None, ("A:", lead, f"The answer is {answer}.")))
            problems.append(f"Q: {problem.question}\n{text}")
        yield "\n\n".join(problems)
