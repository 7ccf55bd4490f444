"""The figures of a run, each with a caption and a table of its numbers."""

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup

from lmsi_jax.analysis import plots
from lmsi_jax.analysis.browser import choose
from lmsi_jax.analysis.plan import Planned, title
from lmsi_jax.analysis.plots import Series
from lmsi_jax.analysis.rounds import NOTHING, Round
from lmsi_jax.analysis.summary import Score, Scores
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.records import Record
from lmsi_jax.evaluation.compare import votes_by_paths
from lmsi_jax.evaluation.statistics import Estimate
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.voting.adaptive import Decided, beta_decided, forecast_decided, simulate_stopping
from lmsi_jax.voting.calibration import accuracy_by_confidence, calibration_error
from lmsi_jax.voting.config import AdaptiveConfig

SIZES = (1, 2, 3, 5, 8, 12, 16, 24, 32)  # numbers of paths to vote over
CURVE_QUESTIONS, CURVE_DRAWS = 300, 16  # limit the time of the curve over numbers of paths to seconds


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing with its caption. `head` and `rows` are the table of its numbers, which may be empty."""

    title: str
    svg: Markup
    caption: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def figures(
    folder: RunFolder, planned: Planned, rows: Sequence[Score], scores: Scores, rounds: Sequence[Round]
) -> list[Figure]:
    """Return the figures that the files of the run allow, in the order of the page."""
    voted = {Series(scores.models.index(m), title(m)): rows for m, rows in scores.of("self_consistency").items()}
    curves = _losses(folder, planned)
    drawn = [_accuracy(rows)] if rows else []
    if voted:
        drawn += [_by_share(voted), _by_paths(voted)]
    elif any(r.votes for r in rounds):
        drawn.append(_shares(rounds))
    if curves:
        drawn.append(
            Figure("Training loss", plots.loss(curves), "Mean over the target tokens of the batch of each step shown.")
        )
    return drawn


def _accuracy(rows: Sequence[Score]) -> Figure:
    caption = f"Share of {rows[0].n:,} held-out questions answered correctly; bars are 95% Wilson intervals."
    return Figure("Accuracy by model", plots.accuracy_per_model(rows), caption)


def _by_share(voted: dict[Series, list[Record]]) -> Figure:
    bins = {
        series: accuracy_by_confidence([r["confidence"] for r in rows], [r["correct"] for r in rows])
        for series, rows in voted.items()
    }
    most = max(b.count for rows in bins.values() for b in rows)
    bars = "; thin bars are 95% intervals" if len(bins) <= plots.MOST_BARRED else ""
    table = []
    for i, first in enumerate(next(iter(bins.values()))):
        cells = [f"{b.accuracy:.1%} ({b.count})" if b.accuracy is not None else NOTHING for b in (f[i] for f in bins.values())]
        table.append((f"{first.low:.0%} to {first.high:.0%}", *cells))
    return Figure(
        "Accuracy by vote share",
        plots.accuracy_by_share(bins),
        f"Held-out questions in ten bins of self-consistency vote share. The area of a marker shows the number of questions "
        f"in its bin (the largest: {most:,}){bars}. On the dashed diagonal the vote share equals the "
        f"accuracy. The expected calibration error is "
        + ", ".join(f"{calibration_error(b):.3f} ({n.name})" for n, b in bins.items())
        + ".",
        ("vote share", *(f"{n.name}: accuracy (questions)" for n in bins)),
        tuple(table),
    )


def paths_curve(rows: Sequence[Record]) -> dict[int, Estimate]:
    """Return the accuracy of the vote for each number of paths, from the scores of at most `CURVE_QUESTIONS` questions."""
    return votes_by_paths(choose(rows, CURVE_QUESTIONS), SIZES, CURVE_DRAWS)


def _by_paths(voted: dict[Series, list[Record]]) -> Figure:
    curves = {series: paths_curve(scored) for series, scored in voted.items()}
    sizes = sorted({size for curve in curves.values() for size in curve})
    count = min(CURVE_QUESTIONS, max(len(scored) for scored in voted.values()))
    rows = [(str(s), *(_estimate(curve[s]) if s in curve else NOTHING for curve in curves.values())) for s in sizes]
    means = {series: {size: estimate.value for size, estimate in curve.items()} for series, curve in curves.items()}
    return Figure(
        "Accuracy by number of paths",
        plots.accuracy_by_number_of_paths(means),
        f"Majority vote over random subsets of the stored paths: {count:,} held-out questions, {CURVE_DRAWS} subsets of each; "
        f"the table's 95% intervals are over questions and paths. {_saving(voted)} The accuracy axis does not start at "
        f"zero.",
        ("paths", *(series.name for series in curves)),
        tuple(rows),
    )


def _saving(voted: dict[Series, list[Record]]) -> str:
    """Return what adaptive stopping would have saved and changed, as a sentence."""
    series, rows = next(iter(voted.items()))
    paths, config = min(r["num_paths"] for r in rows), AdaptiveConfig()
    rules: dict[str, Decided] = {
        "forecast": lambda answers: forecast_decided(answers, paths),
        "beta": beta_decided,
    }
    saved = []
    for name, decided in rules.items():
        drawn, kept = simulate_stopping([r["answers"] for r in rows], decided, config.floor)
        saved.append(f"{drawn:.0%} of the paths with the rule “{name}” (the same answer to {kept:.1%} of the questions)")
    return f"Adaptive stopping ({series.name}) would draw {' or '.join(saved)}."


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({100 * estimate.low:.0f}–{100 * estimate.high:.0f})"


def _shares(rounds: Sequence[Round]) -> Figure:
    voted = [r for r in rounds if r.votes]
    shares = {Series(i, r.name): [v["confidence"] for v in r.votes] for i, r in enumerate(voted, start=1)}
    # Only the counts are drawn, so it does not matter whether a vote is right.
    bins = {series: accuracy_by_confidence(values, [False] * len(values)) for series, values in shares.items()}
    caption = "Questions by the share of paths that gave the majority answer. The answers are not checked against gold answers."
    return Figure("Vote shares of the training questions", plots.vote_shares(bins), caption)


def _losses(folder: RunFolder, planned: Planned) -> dict[Series, list[tuple[int, float]]]:
    """Return the training and validation losses of each stage that trains."""
    curves: dict[Series, list[tuple[int, float]]] = {}
    for stage in planned.stages:
        if stage == "rl":  # the loss of a policy gradient is about 0 whatever is learnt
            continue
        metrics = read_metrics(folder.stage_metrics(stage))
        name = title(stage.rpartition("/")[0]) or stage
        for metric, label in (("loss", name), ("validation_loss", f"{name}, held out")):
            points = [(row["step"], row[metric]) for row in metrics if math.isfinite(row.get(metric, math.nan))]
            if points:
                curves[Series(len(curves) + 1, label)] = points
    return curves
