"""Word problems whose structure the corpus of the built-in model does not have, for tests of generalisation.

Their operations are those of the corpus (sums, differences and products of small numbers). One quantity is told by another:
"Ann has 7 more than Tom".
"""

import random

from lmsi_jax.tasks.word_problems import BOXES, NAMES, THINGS, Problem, Term


def make_other_problem(rng: random.Random, terms: tuple[int, int], largest: int) -> Problem:
    """Return a random problem. `terms` has no effect: each family has its own number of quantities."""
    family = rng.choice((_compared, _remaining, _each))
    while True:
        problem = family(rng, largest)
        if problem.answer >= 1:
            return problem


def _compared(rng: random.Random, largest: int) -> Problem:
    """One of two people has more or fewer than the other; what have they together?"""
    (first, second), thing = rng.sample(NAMES, 2), rng.choice(THINGS)
    held, more = rng.randint(2, largest), rng.choice((True, False))
    apart = rng.randint(2, largest if more else max(2, held - 1))
    other = held + apart if more else held - apart
    said = f"{first} has {held} {thing}. {second} has {apart} {'more' if more else 'fewer'} than {first}."
    return Problem(f"{said} How many {thing} do they have together?", (Term(first, held), Term(second, other)))


def _remaining(rng: random.Random, largest: int) -> Problem:
    """Somebody has a goal; how many are missing?"""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    goal, one, two = rng.randint(20, max(20, largest)), *(rng.randint(2, max(2, largest // 3)) for _ in range(2))
    question = f"{name} wants {goal} {thing}. {name} has {one} and finds {two}. How many {thing} does {name} still need?"
    return Problem(question, (Term("goal", goal), Term("had", one, subtracted=True), Term("found", two, subtracted=True)))


def _each(rng: random.Random, largest: int) -> Problem:
    """Several people have equally many each, and somebody has a number of their own."""
    (name, *_), thing, box = rng.sample(NAMES, 2), rng.choice(THINGS), rng.choice(BOXES)
    count, each, own = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, largest)
    told = f"There are {count} {box} with {each} {thing} each, and {name} has {own} {thing}."
    terms = (Term(box, count * each, (count, each)), Term(name, own))
    return Problem(f"{told} How many {thing} are there altogether?", terms)
