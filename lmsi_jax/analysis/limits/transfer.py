"""Whether the gain depends on the prompt, whether it reaches other tasks, and what training forgets."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lmsi_jax.analysis.limits.limit import Limit
from lmsi_jax.analysis.rounds import share
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.statistics import Estimate, mean_interval, share_estimate
from lmsi_jax.pipeline.run_folder import RunFolder

GIVEN = "given"  # the prompt of training
NORMAL = 1.959964  # the 97.5% quantile of the normal distribution
Sides = tuple[dict[str, bool], dict[str, bool]]  # whether the first and the last model are right, by question


def transfer_limits(folder: RunFolder, models: Sequence[str]) -> list[Limit]:
    """Return the limits of prompts, generalisation and forgetting that a run measured for its first and last model."""
    files = [folder.transfer(name) for name in models]
    measured = [list(read_jsonl(file)) for file in files if file.exists()]
    found = [limit for kind in (prompts, tasks) if (limit := kind(_by_name(measured, kind.__name__.rstrip("s"))))]
    losses = [list(read_jsonl(file)) for file in (folder.text_loss(name) for name in models) if file.exists()]
    return [*found, *([forgetting(losses)] if losses else [])]


def _by_name(measured: Sequence[Sequence[Record]], kind: str) -> dict[str, Sides]:
    """Return what the first and the last model got right with each prompt, or of each task. One model is both."""
    if not measured:
        return {}
    sides: dict[str, Sides] = {}
    for place, rows in enumerate((measured[0], measured[-1])):
        for row in rows:
            if row["kind"] == kind:
                sides.setdefault(row["name"], ({}, {}))[place][row["id"]] = bool(row["correct"])
    return sides if len(measured) > 1 else {name: (before, before) for name, (before, _) in sides.items()}


def _accuracy(right: Mapping[str, bool]) -> Estimate:
    return share_estimate(sum(right.values()), len(right))


def change_row(name: str, sides: Sides) -> tuple[str, ...]:
    """Return a name, the number of questions, and the accuracy before, after and its change, as text."""
    before, after = sides
    gains = _gains(before, after)
    low, high = mean_interval(list(gains.values()), -1.0, 1.0)
    first, last = _accuracy(before), _accuracy(after)
    change = f"{100 * (last.value - first.value):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return name, f"{len(gains):,}", share(sum(before.values()), len(before)), share(sum(after.values()), len(after)), change


HEAD = ("questions", "before", "after", "change, points")


def shares_drawn(sides: Mapping[str, Sides]) -> tuple[tuple[str, Estimate, Estimate | None], ...]:
    """Return the accuracy after and before, by name, as a `Limit` draws it."""
    return tuple((name, _accuracy(after), _accuracy(before)) for name, (before, after) in sides.items())


def prompts(sides: Mapping[str, Sides]) -> Limit | None:
    """Return the accuracy under prompts that training did not use; it warns when the gain is smaller with them."""
    others = {name: each for name, each in sides.items() if name != GIVEN}
    if GIVEN not in sides or not others:
        return None
    gains = {name: _gains(*each) for name, each in sides.items()}
    given = gains[GIVEN]
    elsewhere = {id: sum(gains[name][id] for name in others) / len(others) for id in given}
    before = [_accuracy(each[0]).value for each in others.values()]
    if sides[GIVEN][0] is sides[GIVEN][1]:
        sentence = (
            f"With {len(others)} other prompts for the same {len(given):,} questions, greedy accuracy is {_range(before)}; "
            f"with the prompt of the run it is {_accuracy(sides[GIVEN][0]).value:.1%}."
        )
        return Limit("Dependence on the prompt", sentence, ("prompt", *HEAD), _rows(sides), drawn=shares_drawn(sides))
    low, high = mean_interval([(given[id] - elsewhere[id]) / 2 for id in given], -1.0, 1.0)
    after = [_accuracy(each[1]).value for each in others.values()]
    sentence = (
        f"With {len(others)} other prompts for the same {len(given):,} questions, greedy accuracy is {_range(before)} before "
        f"and {_range(after)} after. The gain is {100 * _mean(given):+.1f} points with the prompt of training and "
        f"{100 * _mean(elsewhere):+.1f} on average with the others (a difference of {200 * low:+.1f} to {200 * high:+.1f})."
    )
    return Limit(
        "Dependence on the prompt", sentence, ("prompt", *HEAD), _rows(sides), warns=low > 0, drawn=shares_drawn(sides)
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1%} to {max(values):.1%}"


def _rows(sides: Mapping[str, Sides]) -> tuple[tuple[str, ...], ...]:
    return tuple(change_row("the prompt of training" if name == GIVEN else name, each) for name, each in sides.items())


def _gains(before: Mapping[str, bool], after: Mapping[str, bool]) -> dict[str, float]:
    return {id: float(after[id]) - before[id] for id in before if id in after}


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def tasks(sides: Mapping[str, Sides]) -> Limit | None:
    """Return the accuracy on tasks that the model was not trained on; it warns when it fell on one."""
    if not sides:
        return None
    rows = tuple(change_row(name, each) for name, each in sides.items())
    words, fell = [], False
    for name, (before, after) in sides.items():
        title = name.replace("_", " ")
        if before is after:
            words.append(f"{title} {share(sum(before.values()), len(before))}")
            continue
        low, high = mean_interval(list(_gains(before, after).values()), -1.0, 1.0)
        fell = fell or high < 0
        words.append(
            f"{title} from {share(sum(before.values()), len(before))} to {share(sum(after.values()), len(after))} (a change of "
            f"{100 * low:+.1f} to {100 * high:+.1f} points)"
        )
    sentence = f"Greedy accuracy on tasks that the run does not train on: {'; '.join(words)}."
    return Limit("Generalisation to other tasks", sentence, ("task", *HEAD), rows, warns=fell, drawn=shares_drawn(sides))


def forgetting(losses: Sequence[Sequence[Record]]) -> Limit:
    """Return the loss on texts like those that the base was trained on; it warns when training raised it.

    The interval of the change is that of a ratio of sums over parts of the texts (Cochran 1977, section 6.4).
    """
    means = [_loss(rows) for rows in losses]
    tokens = sum(row["tokens"] for row in losses[0])
    rows = tuple((row[0]["model"], f"{mean:.3f}") for row, mean in zip(losses, means, strict=True))
    if len(losses) < 2:
        sentence = f"The loss on {tokens:,.0f} tokens of text is {means[0]:.3f} nats a token."
        return Limit("Forgetting", sentence, ("model", "loss, nats a token"), rows)
    change, error = means[-1] - means[0], _standard_error(losses[0], losses[-1])
    low, high = change - NORMAL * error, change + NORMAL * error
    sentence = (
        f"The loss on {tokens:,.0f} tokens of text like that of the base's training goes from {means[0]:.3f} to "
        f"{means[-1]:.3f} nats a token (a change of {low:+.3f} to {high:+.3f})."
    )
    return Limit("Forgetting", sentence, ("model", "loss, nats a token"), rows, warns=low > 0)


def _loss(rows: Sequence[Record]) -> float:
    return math.fsum(row["loss"] for row in rows) / math.fsum(row["tokens"] for row in rows)


def _standard_error(before: Sequence[Record], after: Sequence[Record]) -> float:
    """Return the standard error of the change of the loss a token, from the parts of the texts."""
    tokens = np.array([row["tokens"] for row in before], float)
    changes = np.array([new["loss"] - old["loss"] for old, new in zip(before, after, strict=True)])
    residuals, n = changes - changes.sum() / tokens.sum() * tokens, len(tokens)
    return float(np.sqrt(n / max(n - 1, 1) * np.sum(residuals**2)) / tokens.sum())
