"""Generated English word problems: several quantities, in any order, with a number as the answer.

A question adds independent quantities (some of them products, at most one subtracted). Its steps can be done in any
order and written in several ways. Two solutions of one question therefore really differ, and an error in one of them is
not an error in all.
"""

import dataclasses
import random
from collections.abc import Sequence

NAMES = ("Tom", "Ann", "Bob", "Eva", "Max", "Lily", "Sam", "Nina", "Paul", "Rosa", "Hugo", "Mia")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PLACES = {
    "farm": ("animals", ("cows", "sheep", "goats", "hens", "pigs", "ducks", "horses", "geese")),
    "shop": ("tools", ("hammers", "saws", "rakes", "drills", "shovels", "axes", "files", "clamps")),
    "garden": ("plants", ("roses", "tulips", "ferns", "lilies", "herbs", "vines", "daisies", "shrubs")),
    "kitchen": ("fruits", ("apples", "pears", "plums", "limes", "figs", "peaches", "kiwis", "mangos")),
    "school": ("things", ("desks", "chairs", "maps", "lamps", "clocks", "boards", "globes", "shelves")),
}
THINGS = ("coins", "marbles", "stamps", "cards", "shells", "beads", "buttons", "stickers", "nuts", "stones")
BOXES = ("boxes", "bags", "jars", "packs", "trays")
DEEDS = (("picked", "pick"), ("sold", "sell"), ("found", "find"), ("made", "make"), ("bought", "buy"))
STYLES = ("equations", "sentences", "split", "terse")
FAMILIES = ("place", "days", "people", "story", "boxes")  # of problems; "story" may take away, and "boxes" multiplies


@dataclasses.dataclass(frozen=True)
class Term:
    """One quantity. `factors` is (3, 4) for "3 boxes of 4"; `subtracted` where it is taken away from the total."""

    name: str  # its name in the reasoning: "cows", "Monday", "Tom"
    value: int
    factors: tuple[int, int] | None = None
    subtracted: bool = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question and its quantities."""

    question: str
    terms: tuple[Term, ...]

    @property
    def answer(self) -> int:
        return sum(-term.value if term.subtracted else term.value for term in self.terms)


def make_problem(
    rng: random.Random,
    terms: tuple[int, int],
    largest: int,
    families: Sequence[str] = FAMILIES,
) -> Problem:
    """Return a random problem of one of `families`, of which "story" may take away and "boxes" multiplies.

    Its number of terms is uniform over `terms`, both ends included, but at most 7 or 8 in some families.
    """
    count = rng.randint(*terms)
    family = {"place": _place, "days": _days, "people": _people, "story": _story, "boxes": _boxes}[rng.choice(families)]
    while True:
        problem = family(rng, count, largest)
        if problem.answer >= 1:
            return problem


def _values(rng: random.Random, count: int, largest: int) -> list[int]:
    return [rng.randint(2, largest) for _ in range(count)]


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _place(rng: random.Random, count: int, largest: int) -> Problem:
    place = rng.choice(tuple(PLACES))
    kind, things = PLACES[place]
    count = min(count, len(things))
    names = rng.sample(things, count)
    values = _values(rng, count, largest)
    has = _listed([f"{v} {n}" for v, n in zip(values, names, strict=True)])
    ask = rng.choice((f"How many {kind} are there in all?", f"How many {kind} does the {place} have?"))
    return Problem(f"A {place} has {has}. {ask}", tuple(map(Term, names, values)))


def _days(rng: random.Random, count: int, largest: int) -> Problem:
    count = min(count, len(DAYS))
    days = [DAYS[i] for i in sorted(rng.sample(range(len(DAYS)), count))]
    values = _values(rng, count, largest)
    name, thing, (did, do) = rng.choice(NAMES), rng.choice(THINGS), rng.choice(DEEDS)
    parts = [f"{v} on {day}" for v, day in zip(values, days, strict=True)]
    parts[0] = f"{values[0]} {thing} on {days[0]}"
    ask = f"How many {thing} did {name} {do} in all?"
    return Problem(f"{name} {did} {_listed(parts)}. {ask}", tuple(map(Term, days, values)))


def _people(rng: random.Random, count: int, largest: int) -> Problem:
    names = rng.sample(NAMES, count)
    values = _values(rng, count, largest)
    thing = rng.choice(THINGS)
    parts = [f"{n} has {v}" for n, v in zip(names, values, strict=True)]
    parts[0] = f"{names[0]} has {values[0]} {thing}"
    ask = rng.choice((f"How many {thing} do they have together?", f"How many {thing} is that in all?"))
    return Problem(f"{_listed(parts)}. {ask}", tuple(map(Term, names, values)))


def _story(rng: random.Random, count: int, largest: int) -> Problem:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    givers = rng.sample([n for n in NAMES if n != name], count - 1)
    values = _values(rng, count, largest)
    loss = rng.random() < 0.6
    gains = values[:-1] if loss else values
    clauses = [f"{name} has {gains[0]} {thing}."]
    clauses += [f"{giver} gives {name} {v} more." for giver, v in zip(givers, gains[1:], strict=False)]
    terms = [Term(n, v) for n, v in zip([name, *givers], gains, strict=False)]
    if loss:
        word = rng.choice(("lost", "sold", "broken"))
        clauses.append(f"Then {values[-1]} are {word}.")
        terms.append(Term(word, values[-1], subtracted=True))
    clauses.append(f"How many {thing} does {name} have now?")
    return Problem(" ".join(clauses), tuple(terms))


def _boxes(rng: random.Random, count: int, largest: int) -> Problem:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    kinds = rng.sample(BOXES, min(count, len(BOXES)))
    products = rng.randint(1, min(2, len(kinds)))
    givers = rng.sample([n for n in NAMES if n != name], count)
    parts, terms = [], []
    for i in range(count):
        if i < products:
            a, b = rng.randint(2, 9), rng.randint(2, 9)
            parts.append(f"{a} {kinds[i]} of {b} {thing}" if i == 0 else f"{a} {kinds[i]} of {b}")
            terms.append(Term(kinds[i], a * b, (a, b)))
        else:
            value = rng.randint(2, largest)
            parts.append(f"{value} from {givers[i]}")
            terms.append(Term(givers[i], value))
    ask = rng.choice((f"How many {thing} is that in all?", f"How many {thing} does {name} have?"))
    return Problem(f"{name} has {_listed(parts)}. {ask}", tuple(terms))


# ---------------------------------------------------------------------------------------------------
# Ways of writing a solution.


def make_solution(
    rng: random.Random, problem: Problem, style: str, mistake: bool = False, last: int | None = None
) -> tuple[str, int]:
    """Return (the reasoning in one style, with its steps in random order; the answer that it reaches).

    With `mistake` one thing goes wrong, as in real text (a slip in a sum, or a forgotten quantity), and the rest follows
    from it. With `last` the result of the last step is this number, right or wrong.
    """
    terms = _order(rng, list(problem.terms))
    slip = -1
    if mistake and len(terms) > 2 and rng.random() < 0.3:
        terms.pop(rng.randrange(1, len(terms)))
    elif mistake:
        slip = rng.randrange(1, len(terms))
    if style == "terse":
        return _terse(rng, terms, slip > 0, last)
    lines = []
    for term in terms:
        if term.factors:
            a, b = term.factors
            lines.append(f"{a} {term.name} of {b} make {term.value}." if style == "sentences" else f"{a} * {b} = {term.value}.")
    total = terms[0].value
    for i, term in enumerate(terms[1:], start=1):
        new = total - term.value if term.subtracted else total + term.value
        if i == slip:
            new = max(0, new + rng.choice((-10, -1, 1, 10)))
        if i == len(terms) - 1 and last is not None:
            new = last
        lines.append(_step(style, terms[0] if i == 1 else None, total, term, new))
        total = new
    return " ".join(lines), total


def _order(rng: random.Random, terms: list[Term]) -> list[Term]:
    """Return the terms in a random order in which no running total is negative."""
    while True:
        rng.shuffle(terms)
        total, fine = 0, not terms[0].subtracted
        for term in terms:
            total += -term.value if term.subtracted else term.value
            fine = fine and total >= 0
        if fine:
            return terms


def _step(style: str, first: Term | None, total: int, term: Term, new: int) -> str:
    sign = "-" if term.subtracted else "+"
    if style == "equations":
        return f"{total} {sign} {term.value} = {new}."
    if style == "split":
        a, b = divmod(total, 10), divmod(term.value, 10)
        op = (lambda p, q: p - q) if term.subtracted else (lambda p, q: p + q)
        tens, ones = op(a[0], b[0]) * 10, op(a[1], b[1])
        return f"{total} {sign} {term.value}: {a[0] * 10} {sign} {b[0] * 10} = {tens}, {a[1]} {sign} {b[1]} = {ones}, so {new}."
    if term.subtracted:
        return f"{total} less the {term.value} {term.name} leaves {new}."
    if first is not None:
        return f"{first.name} {total} and {term.name} {term.value} make {new}."
    return f"With {term.name} {term.value} that is {new}."


def _terse(rng: random.Random, terms: list[Term], slip: bool, last: int | None) -> tuple[str, int]:
    total = sum(-term.value if term.subtracted else term.value for term in terms)
    if slip:
        total = max(0, total + rng.choice((-10, -1, 1, 10)))
    total = total if last is None else last
    text = f"{terms[0].value}"
    for term in terms[1:]:
        text += f" {'-' if term.subtracted else '+'} {term.value}"
    return f"{text} = {total}.", total
