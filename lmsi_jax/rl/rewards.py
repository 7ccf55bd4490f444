"""Rewards of paths: functions of the paths of one question, each a number a path."""

import dataclasses
import importlib
import math
import random
from collections.abc import Callable, Mapping, Sequence

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record
from lmsi_jax.trust.statements import WRONG
from lmsi_jax.trust.steps import check_paths
from lmsi_jax.voting.majority import validity_weights, vote

VALID_VOTE = "valid_vote"
MODEL = "model"  # the score of a reward model, which the caller computes for all groups at once
BUILT_IN = ("gold", "vote", VALID_VOTE, "first_path", MODEL, "steps", "length", "random")
READS_GOLD = ("gold",)


@dataclasses.dataclass(frozen=True)
class Group:
    """The paths of one question, and what rewards may read of them. `accepted` are the gold answers, if a reward reads them."""

    question: Record
    paths: Sequence[Record]
    answers: Sequence[str | None]  # of each path
    max_tokens: int
    accepted: Sequence[str] | None = None


Reward = Callable[[Group], Sequence[float]]


def make(name: str, reader: AnswerReader, seed: int, checks: Sequence[str] = ()) -> Reward:
    """Return a reward by its name: one of `BUILT_IN`, or the dotted name of a function of (question, path).

    `checks` are those of "valid_vote". Raises UserError when there is no such function.
    """
    if name == "gold":
        return lambda group: [float(reader.is_right(answer, group.accepted or ())) for answer in group.answers]
    built_in: Mapping[str, Reward] = {"vote": agreement, "first_path": same_as_first, "steps": valid_steps, "length": brevity}
    if name in built_in:
        return built_in[name]
    if name == VALID_VOTE:
        return lambda group: valid_agreement(group, checks)
    if name == "random":
        return lambda group: [_random(seed, group, path) for path in group.paths]
    return _function(name)


def agreement(group: Group) -> list[float]:
    """Return 1 for paths that agree with the majority of their group, as in TTRL (arXiv 2504.16084); no gold answer is read.

    A path without an answer gets 0, and so do all paths where two answers have equally many votes.
    """
    outcome = vote(group.answers, tie="abstain")
    return [float(answer is not None and answer == outcome.answer) for answer in group.answers]


def same_as_first(group: Group) -> list[float]:
    """Return 1 for paths that agree with the first path of their group: the control in which one path votes alone."""
    return [float(answer is not None and answer == group.answers[0]) for answer in group.answers]


def valid_agreement(group: Group, checks: Sequence[str]) -> list[float]:
    """Return 1 for paths that agree with the vote in which paths that pass `checks` vote first; no gold answer is read.

    Where no path passes, all vote, as in `agreement`.
    """
    texts = [path["text"] for path in group.paths]
    checked = check_paths(group.question["question"], texts, list(group.answers))
    outcome = vote(group.answers, tie="abstain", weights=validity_weights([each.is_valid(checks) for each in checked]))
    return [float(answer is not None and answer == outcome.answer) for answer in group.answers]


def valid_steps(group: Group) -> list[float]:
    """Return the share of a path's arithmetic statements that are not wrong, by the checks of `trust`; 0 without statements."""
    checked = check_paths(group.question["question"], [path["text"] for path in group.paths], list(group.answers))
    found = []
    for each in checked:
        verdicts = [statement.verdict for step in each.steps for statement in step.statements]
        found.append(sum(verdict != WRONG for verdict in verdicts) / len(verdicts) if verdicts else 0.0)
    return found


def brevity(group: Group) -> list[float]:
    """Return minus the share of the token limit that a path used."""
    return [-path["num_tokens"] / group.max_tokens for path in group.paths]


def _random(seed: int, group: Group, path: Record) -> float:
    """Return 0 or 1, the same for the same path: the control of a reward."""
    return float(random.Random(f"reward {seed} {group.question['id']} {path['path']} {path['text']}").random() < 0.5)


def _function(name: str) -> Reward:
    """Return the reward that a user's Python function gives to each path."""
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise UserError(f"rl.rewards names {name}, which cannot be imported: {type(error).__name__}: {error}.") from error

    def reward(group: Group) -> list[float]:
        values = []
        for path in group.paths:
            where = f"The reward {name} of path {path['path']} of question '{group.question['id']}'"
            try:
                value = float(function(dict(group.question), dict(path)))
            except Exception as error:
                raise UserError(f"{where} failed: {type(error).__name__}: {error}.") from error
            if not math.isfinite(value):
                raise UserError(f"{where} is {value}; a reward must be a finite number.")
            values.append(value)
        return values

    return reward
