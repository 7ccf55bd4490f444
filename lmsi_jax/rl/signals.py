"""Signals of collapse that need no gold answer: how a model votes on probe questions and on reworded twins of them."""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lmsi_jax.tasks.word_problems import NAMES
from lmsi_jax.voting.majority import Vote, vote

_NUMBER = re.compile(r"(?<![\d.,])\d+(?![\d.,]*\d)")
_NAME = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")


def twin(question: str, seed: str) -> str:
    """Return a question with the same answer in other words: other first names. It is equal without a name that is known."""
    found = list(dict.fromkeys(_NAME.findall(question)))
    free = [name for name in NAMES if name not in found]
    random.Random(f"twin {seed} {question}").shuffle(free)
    renamed = dict(zip(found, [*free, *found[::-1]], strict=False))
    return _NAME.sub(lambda match: renamed[match[0]], question)


def counterpart(question: str, seed: str) -> str:
    """Return a question whose answer is another one: with another number, of as many digits. It is equal without a number."""
    places = [found.span() for found in _NUMBER.finditer(question)]
    if not places:
        return question
    rng = random.Random(f"counterpart {seed} {question}")
    first, last = rng.choice(places)
    old, digits = int(question[first:last]), last - first
    least = 10 ** (digits - 1) if digits > 1 else 2
    new = rng.choice([number for number in range(least, min(10**digits, least + 1000)) if number != old])
    return f"{question[:first]}{new}{question[last:]}"


Answers = Sequence[Sequence[str | None]]  # of the paths of each question


def signals(
    answers: Answers, twins: Answers, counterparts: Answers, before: Sequence[str | None] | None = None
) -> dict[str, float]:
    """Return the signals of one check, from the answers of each probe's paths, of each twin's and of each counterpart's.

    `vote_share`: the mean share of the winning answer. `answers`: different answers of a probe. `answers_across`: different
    winners, as a share of the probes; it falls when one answer is given to all questions. `twins_alike`: the share of probes
    whose twin has the same winner, and `counterparts_alike` of those whose counterpart has it, which should be another one.
    `twin_agreement` is the former less the latter: 0 when answers do not depend on what is asked, however often twins agree.
    Without counterparts it is corrected for chance in their place (Cohen 1960). `flips`: the share of probes whose winner is
    not that of the check `before`. `unread`: paths without an answer.
    """
    votes, of_twins, of_others = ([vote(each, tie="abstain") for each in group] for group in (answers, twins, counterparts))
    n, paths = len(votes), [answer for each in answers for answer in each]
    alike = _alike(votes, of_twins)
    measured = {
        "vote_share": sum(each.confidence for each in votes) / n,
        "answers": sum(len(each.counts) for each in votes) / n,
        "answers_across": len({each.answer for each in votes if each.answer is not None}) / n,
        "twins_alike": alike,
        "unread": sum(answer is None for answer in paths) / len(paths),
    }
    if of_others:
        measured["counterparts_alike"] = _alike(votes, of_others)
        measured["twin_agreement"] = alike - measured["counterparts_alike"]
    else:
        chance = _chance(votes, of_twins)
        measured["twin_agreement"] = 0.0 if chance >= 1 else (alike - chance) / (1 - chance)
    if before is not None:
        measured["flips"] = sum(each.answer != old for each, old in zip(votes, before, strict=True)) / n
    return measured


def _alike(votes: Sequence[Vote], others: Sequence[Vote]) -> float:
    return sum(a.answer == b.answer and a.answer is not None for a, b in zip(votes, others, strict=True)) / len(votes)


def _chance(votes: Sequence[Vote], twins: Sequence[Vote]) -> float:
    first, second = (Counter(each.answer for each in side if each.answer is not None) for side in (votes, twins))
    return sum(first[answer] * second[answer] for answer in first) / len(votes) ** 2


def best_check(history: Sequence[Mapping[str, float]]) -> int:
    """Return the place of the check with the best agreement of twins, the first of equal ones."""
    return max(range(len(history)), key=lambda place: history[place]["twin_agreement"])


def standard_error(share: float, n: int) -> float:
    """Return the standard error of a share of n probes; that of one probe where the share is 0 or 1."""
    return float(max(share * (1 - share), 1 / n) / n) ** 0.5


def agreement_error(check: Mapping[str, float], n: int) -> float:
    """Return the standard error of the agreement of twins of a check with n probes, a share or a difference of two."""
    shares = [check[name] for name in ("twins_alike", "counterparts_alike") if name in check] or [check["twin_agreement"]]
    return math.hypot(*(standard_error(share, n) for share in shares))


def alarm(history: Sequence[Mapping[str, float]], probes: int, checks: int = 3) -> str:
    """Return why training has to end, as a sentence, or "" while nothing shows a collapse.

    `history` has the signals of each check, oldest first; the first is that of the model before training. An alarm takes
    `checks` checks in a row at each of which

    - twin agreement is below that of the best check by more than 2.5 times the standard error of the difference: answers
      depend on the wording, or no longer on the numbers; or
    - there are less than half as many different winners as at the first check, and the vote share is above its vote share.

    With 64 probes and 12 checks of a model that does not change, 0.8% of runs have an alarm.
    """
    if len(history) <= checks:
        return ""
    best, first, recent = history[best_check(history)], history[0], history[-checks:]
    last = recent[-1]

    def fell(row: Mapping[str, float]) -> bool:
        error = math.hypot(*(agreement_error(check, probes) for check in (best, row)))
        return bool(row["twin_agreement"] < best["twin_agreement"] - 2.5 * error)

    if all(fell(row) for row in recent):
        return (
            f"The agreement with reworded twins fell from {best['twin_agreement']:.2f} to {last['twin_agreement']:.2f}, while "
            f"the vote share went from {best['vote_share']:.2f} to {last['vote_share']:.2f}."
        )
    surer = all(row["vote_share"] > first["vote_share"] for row in recent)
    if surer and all(row["answers_across"] < 0.5 * first["answers_across"] for row in recent):
        return (
            f"The vote share rose to {last['vote_share']:.2f} while the different answers across questions fell from "
            f"{first['answers_across']:.2f} to {last['answers_across']:.2f} a question."
        )
    return ""
