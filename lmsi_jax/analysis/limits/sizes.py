"""Accuracy by the size of a question: whether a gain on short questions hides a loss on long ones."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from lmsi_jax.analysis.limits.limit import Limit
from lmsi_jax.analysis.limits.transfer import HEAD, Sides, change_row, shares_drawn
from lmsi_jax.core.records import Record
from lmsi_jax.evaluation.statistics import holm, mcnemar
from lmsi_jax.trust.quantities import quantities

LEAST = 20  # questions of a size; sizes with fewer are joined with the next larger one
MOST = 6  # rows of the table


def sizes(greedy: Mapping[str, Sequence[Record]], questions: Mapping[str, str]) -> Limit | None:
    """Return the greedy accuracy and the length of the paths of the first and of the last model, by the size of the question.

    The size is the number of quantities that a question gives; of questions that mostly give none, the number of words. It
    warns when the accuracy fell for a size by more than chance (exact McNemar test, corrected by Holm). Returns None for fewer
    than two models, and where all questions have one size.
    """
    if len(greedy) < 2:
        return None
    first, last = ({row["id"]: row for row in rows} for rows in (list(greedy.values())[0], list(greedy.values())[-1]))
    shared = [id for id in first if id in last and id in questions]
    unit, groups = _grouped(shared, questions)
    if len(groups) < 2:
        return None
    sides: dict[str, Sides] = {
        name: ({id: first[id]["correct"] for id in ids}, {id: last[id]["correct"] for id in ids})
        for name, ids in groups.items()
    }
    rows = tuple(
        (*change_row(name, sides[name]), *(f"{_mean_length(side, ids):.0f}" for side in (first, last)))
        for name, ids in groups.items()
    )
    falling = _falling(sides)
    (least, *_, most) = rows
    sentence = (
        f"Greedy accuracy goes from {least[2]} to {least[3]} on questions with {least[0]} {unit}, and from {most[2]} to "
        f"{most[3]} on those with {most[0]}."
    )
    if falling:
        sentence += f" It fell on those with {', '.join(falling)}."
    head = (unit, *HEAD, "tokens of a path before", "after")
    drawn = shares_drawn({f"{name} {unit}": each for name, each in sides.items()})
    return Limit("Accuracy by the size of the question", sentence, head, rows, warns=bool(falling), drawn=drawn)


def _mean_length(rows: Mapping[str, Record], ids: Sequence[str]) -> float:
    return sum(rows[id]["num_tokens"] for id in ids) / len(ids)


def _falling(sides: Mapping[str, Sides]) -> list[str]:
    """Return the sizes for which the accuracy fell by more than chance."""
    p_values = holm([mcnemar(list(before.values()), list(after.values())) for before, after in sides.values()])
    fell = (sum(after.values()) < sum(before.values()) for before, after in sides.values())
    return [name for name, fell_here, p_value in zip(sides, fell, p_values, strict=True) if fell_here and p_value < 0.05]


def _grouped(ids: Sequence[str], questions: Mapping[str, str]) -> tuple[str, dict[str, list[str]]]:
    """Return the unit of the sizes, and ids by range of sizes, smallest first."""
    size = {id: len(quantities(questions[id]).written) for id in ids}
    unit = "quantities"
    if 2 * sum(value > 0 for value in size.values()) < len(ids):
        size, unit = {id: len(questions[id].split()) for id in ids}, "words"
    ordered = sorted(ids, key=lambda id: size[id])
    least, groups = max(LEAST, len(ids) // MOST), list[list[str]]()
    for _, equal in groupby(ordered, key=lambda id: size[id]):
        if groups and len(groups[-1]) < least:
            groups[-1] += equal
        else:
            groups.append(list(equal))
    if len(groups) > 1 and len(groups[-1]) < least:
        groups[-2:] = [groups[-2] + groups[-1]]
    return unit, {_range(size[group[0]], size[group[-1]]): group for group in groups}


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
