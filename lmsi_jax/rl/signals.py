"""Signals of collapse that need no gold answer: how a model votes on probe questions and on reworded twins of them."""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lmsi_jax.tasks.word_problems import NAMES
from lmsi_jax.voting.majority import Vote, vote

_NAME = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")


def twin(question: str, seed: str) -> str:
    """Return a question with the same answer in other words: other first names. It is equal without a name that is known."""
    found = list(dict.fromkeys(_NAME.findall(question)))
    free = [name for name in NAMES if name not in found]
    random.Random(f"twin {seed} {question}").shuffle(free)
    renamed = dict(zip(found, [*free, *found[::-1]], strict=False))
    return _NAME.sub(lambda match: renamed[match[0]], question)


def signals(
    answers: Sequence[Sequence[str | None]], twins: Sequence[Sequence[str | None]], before: Sequence[str | None] | None = None
) -> dict[str, float]:
    """Return the signals of one check, from the answers of each probe's paths, and of each twin's.

    `vote_share`: the mean share of the winning answer. `answers`: different answers of a probe. `answers_across`: different
    winners, as a share of the probes; it falls when one answer is given to all questions. `twin_agreement`: the share of
    probes whose twin has the same winner, corrected for chance (Cohen 1960): 0 when one answer is given to all. `flips`: the
    share of probes whose winner is not that of the check `before`. `unread`: paths without an answer.
    """
    votes, of_twins = ([vote(each, tie="abstain") for each in group] for group in (answers, twins))
    n, paths = len(votes), [answer for each in answers for answer in each]
    measured = {
        "vote_share": sum(each.confidence for each in votes) / n,
        "answers": sum(len(each.counts) for each in votes) / n,
        "answers_across": len({each.answer for each in votes if each.answer is not None}) / n,
        "twin_agreement": _agreement(votes, of_twins),
        "unread": sum(answer is None for answer in paths) / len(paths),
    }
    if before is not None:
        measured["flips"] = sum(each.answer != old for each, old in zip(votes, before, strict=True)) / n
    return measured


def _agreement(votes: Sequence[Vote], twins: Sequence[Vote]) -> float:
    n = len(votes)
    equal = sum(a.answer == b.answer and a.answer is not None for a, b in zip(votes, twins, strict=True)) / n
    first, second = (Counter(each.answer for each in side if each.answer is not None) for side in (votes, twins))
    chance = sum(first[answer] * second[answer] for answer in first) / n**2
    return 0.0 if chance >= 1 else (equal - chance) / (1 - chance)


def standard_error(share: float, n: int) -> float:
    """Return the standard error of a share of n probes; that of one probe where the share is 0 or 1."""
    return float(max(share * (1 - share), 1 / n) / n) ** 0.5


def alarm(history: Sequence[Mapping[str, float]], probes: int, checks: int = 3) -> str:
    """Return why training has to end, as a sentence, or "" while nothing shows a collapse.

    `history` has the signals of each check, oldest first; the first is that of the model before training. An alarm takes
    `checks` checks in a row, at each of which the vote share is above that of the best check, by twin agreement, and

    - twin agreement is below that of the best check by more than three times its standard error, or
    - there are less than half as many different winners as at the first check.

    The model is then surer of answers that depend on the wording, or that are the same for all questions. With 64 probes and
    12 checks of a model that does not change, 1.4% of runs have an alarm.
    """
    if len(history) <= checks:
        return ""
    best = max(history, key=lambda row: row["twin_agreement"])
    first, recent = history[0], history[-checks:]
    surer = all(row["vote_share"] > best["vote_share"] for row in recent)
    allowed = 3 * standard_error(best["twin_agreement"], probes)
    if surer and all(row["twin_agreement"] < best["twin_agreement"] - allowed for row in recent):
        return (
            f"The vote share rose to {recent[-1]['vote_share']:.2f} while the agreement with reworded twins fell from "
            f"{best['twin_agreement']:.2f} to {recent[-1]['twin_agreement']:.2f}."
        )
    surer = all(row["vote_share"] > first["vote_share"] for row in recent)
    if surer and all(row["answers_across"] < 0.5 * first["answers_across"] for row in recent):
        return (
            f"The vote share rose to {recent[-1]['vote_share']:.2f} while the different answers across questions fell from "
            f"{first['answers_across']:.2f} to {recent[-1]['answers_across']:.2f} a question."
        )
    return ""
