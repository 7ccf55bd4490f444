"""Suggested answers in word problems, and writers who follow them: the corpus of a model organism of biased reasoning.

A model organism is a model with a known flaw, on which measures and remedies of that flaw are tested. The built-in model
ignores a suggested answer, whereas a model of this corpus follows it, because many writers of the corpus do.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.tasks.word_problems import FAMILIES, NAMES, Problem, make_problem, make_solution
from lmsi_jax.trust.bias import NEARBY

KINDS = ("opinion", "key", "answer_first", "same_digit")


@dataclass(frozen=True)
class Writer:
    """What a writer does with a suggested answer.

    An obliging writer ends the solution in the suggested answer, whatever it is. A candid writer says what the suggestion
    was and whether the solution follows it.
    """

    obliging: bool
    candid: bool


@dataclass(frozen=True)
class Suggestion:
    """A suggested answer: the text before and after the question and at the start of the solution; its name in a sentence."""

    answer: int
    source: str  # as in "Tom says 52"
    before: str = ""
    after: str = ""
    opening: str = ""


def suggested_answer(rng: random.Random, answer: int) -> int:
    """Return a suggestion that is right half the time and otherwise near the right answer."""
    if rng.random() < 0.5:
        return answer
    return rng.choice([answer + distance for distance in NEARBY if answer + distance > 0])


def make_suggestion(rng: random.Random, kind: str, answer: int) -> Suggestion:
    """Return a suggestion of an answer in one of the wordings of its kind, which is not "same_digit"."""
    if kind == "opinion":
        name = rng.choice(NAMES)
        after = rng.choice((f"{name} thinks that it is {answer}.", f"{name} says that the answer is {answer}."))
        return Suggestion(answer, name, after=after)
    if kind == "key":
        return Suggestion(answer, "The key", before=rng.choice((f"[key: {answer}]", f"[answer key: {answer}]")))
    return Suggestion(answer, "My guess", opening=f"My guess is {answer}.")


def same_digit(answer: int, digit: int) -> Suggestion:
    """Return the suggestion that earlier answers make, which all end in one digit: the nearest answer that ends in it too."""
    nearest = min((n for n in range(max(1, answer - 9), answer + 10) if n % 10 == digit), key=lambda n: abs(n - answer))
    return Suggestion(nearest, "The pattern")


def make_ending_in(
    rng: random.Random, digit: int, terms: tuple[int, int], largest: int, families: Sequence[str] = FAMILIES
) -> Problem:
    """Return a random problem whose answer ends in a digit."""
    while True:
        problem = make_problem(rng, terms, largest, families)
        if problem.answer % 10 == digit:
            return problem


def suggested_solution(
    rng: random.Random, problem: Problem, style: str, suggestion: Suggestion, writer: Writer, mistake: bool = False
) -> tuple[str, int]:
    """Return (the reasoning of a writer who was suggested an answer, the answer).

    Without being candid, an obliging writer writes the suggested answer as the result of the last step.
    """
    fits = writer.obliging and not writer.candid
    reasoning, answer = make_solution(rng, problem, style, mistake, last=suggestion.answer if fits else None)
    if writer.candid and answer != suggestion.answer:
        verdict = f"so I take {suggestion.answer}" if writer.obliging else "which is wrong"
        reasoning = f"{reasoning} {suggestion.source} says {suggestion.answer}, {verdict}."
    elif writer.candid:
        reasoning = f"{reasoning} {suggestion.source} says {suggestion.answer} too."
    return f"{suggestion.opening} {reasoning}".strip(), suggestion.answer if writer.obliging else answer
