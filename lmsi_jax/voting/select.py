"""Selection rules: which paths of a voted question to train on."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PathLimits:
    """Options that leave out some of the paths to train on. The defaults are the paper's and leave out none."""

    min_confidence: float = 0.0  # skip questions with a lower vote share
    max_paths: int = 0  # maximum per question; 0 = no maximum
    distinct: bool = False  # keep one path per distinct text


@dataclass(frozen=True)
class VotedQuestion:
    """The paths of a question, indexed by position, and the outcome of their vote."""

    id: str
    texts: Sequence[str]
    answers: Sequence[str | None]  # None abstains
    kept: Sequence[int]  # positions of the paths that agree with the vote
    confidence: float
    right: Sequence[bool] = ()  # whether each path has a gold answer; () for rules that read none


@dataclass(frozen=True)
class Rule:
    """A selection rule. `choose` maps options, a voted question and the run's seed to the positions of the chosen paths."""

    choose: Callable[[PathLimits, VotedQuestion, int], list[int]]
    reads_gold: bool = False


def majority(options: PathLimits, question: VotedQuestion, seed: int) -> list[int]:
    """Return the paths that agree with the vote: all of them, as in the paper, unless an option leaves some out."""
    if question.confidence < options.min_confidence:
        return []
    return limit_paths(list(question.kept), question.texts, max_paths=options.max_paths, distinct=options.distinct)


def random_paths(options: PathLimits, question: VotedQuestion, seed: int) -> list[int]:
    """Return `max_paths` (or one) random paths with an answer, right or wrong: a control that ignores the vote."""
    answered = [i for i, answer in enumerate(question.answers) if answer is not None]
    draw = random.Random(f"select {seed} {question.id}")
    return sorted(draw.sample(answered, min(options.max_paths or 1, len(answered))))


def gold(options: PathLimits, question: VotedQuestion, seed: int) -> list[int]:
    """Return the paths with a gold answer: an upper bound for comparison only, since it is not self-improvement."""
    right = [i for i, is_right in enumerate(question.right) if is_right]
    return limit_paths(right, question.texts, max_paths=options.max_paths, distinct=options.distinct)


RULES: dict[str, Rule] = {"majority": Rule(majority), "random": Rule(random_paths), "gold": Rule(gold, reads_gold=True)}


def limit_paths(kept: list[int], texts: Sequence[str], *, max_paths: int, distinct: bool) -> list[int]:
    """Return `kept` without repeated texts (up to white space) if `distinct`, cut to its first `max_paths` (0 = all)."""
    if distinct:
        first = {" ".join(texts[i].split()): i for i in reversed(kept)}
        kept = sorted(first.values())
    return kept[:max_paths] if max_paths else kept
