"""Reads a word problem back from its text, so that the audit knows the answer of one that a model wrote."""

import re
from collections.abc import Callable, Iterable

from lmsi_jax.tasks.word_problems import BOXES, DAYS, DEEDS, NAMES, PLACES, THINGS, Problem, Term


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(words)})"


_NAME, _THING, _BOX, _DAY = _any(NAMES), _any(THINGS), _any(BOXES), _any(DAYS)
_PAST = {past: present for past, present in DEEDS}


def read_problem(question: str) -> Problem | None:
    """Return the problem whose text this is, or None when it is not one of the five kinds of `make_problem`.

    It is None too when the question contradicts itself: when it asks for other things than it counts, names somebody twice,
    or takes away more than there is.
    """
    for pattern, read in _KINDS:
        found = pattern.fullmatch(question)
        if found:
            problem = Problem(question, tuple(read(**found.groupdict())))
            return problem if _is_consistent(problem) else None
    return None


def _is_consistent(problem: Problem) -> bool:
    names = [term.name for term in problem.terms]
    return len(names) >= 2 and len(set(names)) == len(names) and problem.answer >= 0


def _parts(listed: str, pattern: str) -> list[tuple[str, ...]]:
    """Return the groups of `pattern` in each part of "a, b and c", or [] when a part does not match."""
    found = [re.fullmatch(pattern, part) for part in re.split(r", | and ", listed)]
    return [each.groups() for each in found if each] if all(found) else []


def _place(place: str, listed: str, kind: str, asked: str | None) -> list[Term]:
    plural, things = PLACES[place]
    parts = _parts(listed, r"(\d+) (\w+)")
    fits = kind == plural and asked in (None, place) and {name for _, name in parts} <= set(things)
    return [Term(name, int(value)) for value, name in parts] if fits else []


def _days(name: str, past: str, value: str, thing: str, rest: str, asked: str, asker: str, deed: str) -> list[Term]:
    parts = _parts(f"{value} on {rest}", rf"(\d+) on ({_DAY})")
    fits = (thing, name, _PAST[past]) == (asked, asker, deed)
    return [Term(day, int(value)) for value, day in parts] if fits else []


def _people(first: str, thing: str, rest: str, asked: str) -> list[Term]:
    parts = _parts(first + rest, rf"({_NAME}) has (\d+)")
    return [Term(name, int(value)) for name, value in parts] if thing == asked else []


def _story(
    name: str, value: str, thing: str, gifts: str, lost: str | None, how: str | None, asked: str, asker: str
) -> list[Term]:
    given = re.findall(r"(\w+) gives (\w+) (\d+) more\.", gifts)
    if (thing, name) != (asked, asker) or any(receiver != name for _, receiver, _ in given):
        return []
    terms = [Term(name, int(value)), *(Term(giver, int(more)) for giver, _, more in given)]
    return [*terms, Term(str(how), int(lost), subtracted=True)] if lost else terms


def _boxes(name: str, first: str, thing: str, rest: str, asked: str, asker: str | None) -> list[Term]:
    terms = []
    for part in re.split(r", | and ", first + rest):
        boxes = re.fullmatch(rf"(\d+) ({_BOX}) of (\d+)", part)
        gift = re.fullmatch(rf"(\d+) from ({_NAME})", part)
        if boxes:
            factors = (int(boxes[1]), int(boxes[3]))
            terms.append(Term(boxes[2], factors[0] * factors[1], factors))
        elif gift:
            terms.append(Term(gift[2], int(gift[1])))
        else:
            return []
    return terms if thing == asked and asker in (None, name) else []


_KINDS: tuple[tuple[re.Pattern[str], Callable[..., list[Term]]], ...] = tuple(
    (re.compile(pattern), read)
    for pattern, read in (
        (
            rf"A (?P<place>{_any(PLACES)}) has (?P<listed>\d[^.]*)\. How many (?P<kind>\w+) "
            rf"(?:are there in all|does the (?P<asked>\w+) have)\?",
            _place,
        ),
        (
            rf"(?P<name>{_NAME}) (?P<past>{_any(_PAST)}) (?P<value>\d+) (?P<thing>{_THING}) on (?P<rest>[^.]*)\. "
            rf"How many (?P<asked>\w+) did (?P<asker>\w+) (?P<deed>\w+) in all\?",
            _days,
        ),
        (
            rf"(?P<first>{_NAME} has \d+) (?P<thing>{_THING})(?P<rest>(?:, | and )[^.]*)\. "
            rf"How many (?P<asked>\w+) (?:do they have together|is that in all)\?",
            _people,
        ),
        (
            rf"(?P<name>{_NAME}) has (?P<value>\d+) (?P<thing>{_THING})\.(?P<gifts>(?: {_NAME} gives \w+ \d+ more\.)*)"
            rf"(?: Then (?P<lost>\d+) are (?P<how>lost|sold|broken)\.)? How many (?P<asked>\w+) does (?P<asker>\w+) have now\?",
            _story,
        ),
        (
            rf"(?P<name>{_NAME}) has (?P<first>\d+ {_BOX} of \d+) (?P<thing>{_THING})(?P<rest>[^.]*)\. "
            rf"How many (?P<asked>\w+) (?:is that in all|does (?P<asker>\w+) have)\?",
            _boxes,
        ),
    )
)
