"""Which figures a run has, each with a caption and the numbers behind it."""

import dataclasses
import math
from collections.abc import Sequence

import markupsafe
from etils import epath

from lmsi_jax.analysis import plots
from lmsi_jax.analysis.browser import choose
from lmsi_jax.analysis.rounds import NOTHING, Round, metric_rows
from lmsi_jax.analysis.summary import Score, checkpoint_name
from lmsi_jax.core.config import AdaptiveConfig
from lmsi_jax.core.records import Record
from lmsi_jax.evaluation.compare import votes_by_paths
from lmsi_jax.evaluation.statistics import Estimate
from lmsi_jax.voting.adaptive import Decided, beta_decided, forecast_decided, replay
from lmsi_jax.voting.calibration import accuracy_by_confidence, calibration_error

SIZES = (1, 2, 3, 5, 8, 12, 16, 24, 32)  # numbers of paths to vote over
CURVE_QUESTIONS, CURVE_DRAWS = 300, 16  # what the curve over numbers of paths may cost: seconds, not minutes


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing; `head` and `rows` are its numbers as a table, and may be empty."""

    title: str
    svg: markupsafe.Markup
    caption: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def figures(
    workdir: epath.Path, rows: Sequence[Score], scores: dict[tuple[str, int], list[Record]], rounds: Sequence[Round]
) -> list[Figure]:
    """The figures that the run's files allow, in the order of the page."""
    voted = {number: found for (name, number), found in scores.items() if name == "self_consistency" and found}
    curves = {r.number: _loss(workdir, r.number) for r in rounds}
    curves = {number: points for number, points in curves.items() if points}
    found = [_accuracy(rows)] if rows else []
    if voted:
        found += [_by_share(voted), _by_paths(voted)]
    elif any(r.votes for r in rounds):
        found.append(_shares(rounds))
    if curves:
        drawing = markupsafe.Markup(plots.loss(curves))
        found.append(Figure("Fine-tuning loss", drawing, "Mean over the target tokens of the batch of each step shown."))
    return found


def _accuracy(rows: Sequence[Score]) -> Figure:
    caption = f"Share of {rows[0].n:,} held-out questions answered correctly; bars are 95% Wilson intervals."
    return Figure("Accuracy by round", markupsafe.Markup(plots.accuracy_per_round(rows)), caption)


def _by_share(voted: dict[int, list[Record]]) -> Figure:
    bins = {
        number: accuracy_by_confidence([r["confidence"] for r in found], [r["correct"] for r in found])
        for number, found in voted.items()
    }
    most = max(b.count for found in bins.values() for b in found)
    bars = "; thin bars are 95% intervals" if len(bins) <= plots.MOST_BARRED else ""
    table = []
    for i, first in enumerate(next(iter(bins.values()))):
        cells = [f"{b.accuracy:.1%} ({b.count})" if b.accuracy is not None else NOTHING for b in (f[i] for f in bins.values())]
        table.append((f"{first.low:.0%} to {first.high:.0%}", *cells))
    return Figure(
        "Accuracy by vote share",
        markupsafe.Markup(plots.accuracy_by_share(bins)),
        f"Held-out questions in ten bins of self-consistency vote share. The area of a marker is the number of questions in "
        f"its bin (the largest: {most:,}){bars}. On the dashed diagonal the vote share would be the "
        f"chance of being right; the expected calibration error is "
        + ", ".join(f"{calibration_error(b):.3f} ({checkpoint_name(n)})" for n, b in bins.items())
        + ".",
        ("vote share", *(f"{checkpoint_name(n)}: accuracy (questions)" for n in bins)),
        tuple(table),
    )


def paths_curve(found: Sequence[Record]) -> dict[int, Estimate]:
    """Accuracy of the vote for each number of paths, from stored self-consistency scores of some of the questions."""
    return votes_by_paths(choose(found, CURVE_QUESTIONS), SIZES, CURVE_DRAWS)


def _by_paths(voted: dict[int, list[Record]]) -> Figure:
    curves = {number: paths_curve(found) for number, found in voted.items()}
    sizes = sorted({size for curve in curves.values() for size in curve})
    asked = min(CURVE_QUESTIONS, max(len(found) for found in voted.values()))
    rows = [(str(s), *(_estimate(curve[s]) if s in curve else NOTHING for curve in curves.values())) for s in sizes]
    means = {number: {size: estimate.value for size, estimate in curve.items()} for number, curve in curves.items()}
    return Figure(
        "Accuracy by number of paths",
        markupsafe.Markup(plots.accuracy_by_number_of_paths(means)),
        f"Majority vote over random subsets of the stored paths: {asked:,} held-out questions, {CURVE_DRAWS} subsets of each; "
        f"the table's 95% intervals are over questions and paths. {_saving(voted)} The axis of accuracy does not begin at "
        f"zero.",
        ("paths", *map(checkpoint_name, curves)),
        tuple(rows),
    )


def _saving(voted: dict[int, list[Record]]) -> str:
    """What stopping early would have saved, and what it would have cost."""
    number, found = next(iter(voted.items()))
    paths, floor = min(r["num_paths"] for r in found), AdaptiveConfig().floor
    rules: dict[str, Decided] = {
        "forecast": lambda said: forecast_decided(said, paths),
        "beta": beta_decided,
    }
    saved = []
    for name, decided in rules.items():
        drawn, kept = replay([r["answers"] for r in found], decided, floor)
        saved.append(f"with the rule “{name}” {drawn:.0%} of the paths, and the same answer to {kept:.1%} of the questions")
    return f"Adaptive stopping would draw ({checkpoint_name(number)}) {'; '.join(saved)}."


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({100 * estimate.low:.0f}–{100 * estimate.high:.0f})"


def _shares(rounds: Sequence[Round]) -> Figure:
    shares = {r.number: [v["confidence"] for v in r.votes] for r in rounds if r.votes}
    # Whether a vote is right plays no part here: only the counts are drawn.
    bins = {number: accuracy_by_confidence(found, [False] * len(found)) for number, found in shares.items()}
    caption = "Questions by the share of paths that gave the majority answer. Nothing here was checked against a right answer."
    return Figure("Vote shares of the training questions", markupsafe.Markup(plots.vote_shares(bins)), caption)


def _loss(workdir: epath.Path, number: int) -> list[tuple[int, float]]:
    rows = metric_rows(workdir, f"round-{number}-finetune")
    return [(row["step"], row["loss"]) for row in rows if math.isfinite(row.get("loss", math.nan))]
