"""The report's figures as inline SVG: text stays text, and every colour is one of the page's CSS variables."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from lmsi_jax.analysis.summary import TITLES, Score, checkpoint_name
from lmsi_jax.evaluation.statistics import wilson_interval
from lmsi_jax.voting.calibration import Bin

# Drawn in these colours and replaced by the variables afterwards, so that light and dark pages share one drawing. The
# series are Okabe and Ito's palette, which stays apart for colour-blind readers: base, then the rounds, then promptings.
COLOURS = {
    "#101010": "ink", "#606060": "muted", "#d0d0d0": "rule",
    "#888888": "base", "#0072b2": "blue", "#d55e00": "vermillion", "#56b4e9": "sky", "#f0e442": "yellow",
    "#e69f00": "orange", "#009e73": "green", "#cc79a7": "purple",
}  # fmt: skip
HEX = {name: colour for colour, name in COLOURS.items()}
ROUND_COLOURS = ("blue", "vermillion", "sky", "yellow")
MOST_BARRED = 2  # checkpoints whose intervals in the plot of vote shares can be told apart
MANNERS = {"standard": ("orange", "s"), "cot": ("green", "o"), "self_consistency": ("purple", "^")}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same figure has the same bytes
    "font.size": 10.5,
    "text.color": HEX["ink"],
    "axes.labelcolor": HEX["muted"],
    "axes.edgecolor": HEX["rule"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": HEX["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": HEX["rule"],
    "ytick.color": HEX["rule"],
    "xtick.labelcolor": HEX["muted"],
    "ytick.labelcolor": HEX["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.borderaxespad": 0.0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
}


def checkpoint_colour(number: int) -> str:
    return HEX["base" if number == 0 else ROUND_COLOURS[(number - 1) % len(ROUND_COLOURS)]]


def _line(number: int) -> str:
    """Rounds beyond the palette differ by their dashes."""
    return "-" if number <= len(ROUND_COLOURS) else "--"


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.7), layout="constrained")
    return figure, figure.subplots()


def _percent(ax: Axes, low: float, high: float) -> None:
    """A vertical axis of shares, from `low` to `high`, with whole percents at its ticks."""
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _legend(ax: Axes, columns: int = 4) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.03), ncols=columns)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Group names repeat from figure to figure, which a page must not, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{COLOURS[m[0]]})" if m[0] in COLOURS else m[0], text)


def accuracy_per_round(rows: Sequence[Score]) -> str:
    """One line for each prompting, with 95% intervals."""
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes()
        used = [name for name in TITLES if any(r.prompting == name for r in rows)]
        for place, name in enumerate(used):
            colour, marker = MANNERS[name]
            found = [r for r in rows if r.prompting == name]
            x = [r.checkpoint + 0.05 * (place - (len(used) - 1) / 2) for r in found]  # apart, or the intervals overlap
            error = [[max(0.0, r.accuracy - r.low) for r in found], [max(0.0, r.high - r.accuracy) for r in found]]
            values = [r.accuracy for r in found]
            ax.errorbar(
                x, values, error, color=HEX[colour], marker=marker, markersize=6, linewidth=1.8, elinewidth=1.1, capsize=3,
                label=TITLES[name],
            )  # fmt: skip
        last = max(r.checkpoint for r in rows)
        ax.set_xlim(-0.35, last + 0.35)
        ax.xaxis.set_major_locator(FixedLocator(range(last + 1)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: checkpoint_name(round(value))))
        ax.grid(False, axis="x")
        ax.set_ylabel("accuracy")
        _percent(ax, -0.03, 1.03)
        _legend(ax, 3)
        return _svg(figure)


def accuracy_by_share(bins: Mapping[int, Sequence[Bin]]) -> str:
    """Accuracy of the vote in bins of vote share for each checkpoint; a marker's area is its number of questions."""
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes()
        ax.plot([0, 1], [0, 1], color=HEX["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
        most = max((b.count for found in bins.values() for b in found), default=1)
        for number, found in bins.items():
            filled = [b for b in found if b.count]
            colour = checkpoint_colour(number)
            x, y = [b.mean_confidence for b in filled], [b.correct / b.count for b in filled]
            if len(bins) <= MOST_BARRED:
                limits = [wilson_interval(b.correct, b.count) for b in filled]
                ax.vlines(x, [low for low, _ in limits], [high for _, high in limits], color=colour, linewidth=1.0, alpha=0.45)
            ax.plot(x, y, color=colour, linewidth=1.3, linestyle=_line(number), alpha=0.8)
            sizes = [max(9.0, 260.0 * b.count / max(most, 1)) for b in filled]
            ax.scatter(x, y, sizes, color=colour, alpha=0.85, linewidths=0, zorder=3)
            ax.scatter([], [], 36.0, color=colour, label=checkpoint_name(number))  # the legend's, which has no count
        ax.set_xlim(0, 1.03)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_xlabel("vote share of the answer")
        ax.set_ylabel("accuracy")
        _percent(ax, -0.03, 1.05)
        _legend(ax)
        return _svg(figure)


def accuracy_by_number_of_paths(curves: Mapping[int, Mapping[int, float]]) -> str:
    """Accuracy of the vote over k paths against k, for each checkpoint."""
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes()
        for number, curve in curves.items():
            ax.plot(
                list(curve), list(curve.values()), color=checkpoint_colour(number), linestyle=_line(number), marker="o",
                markersize=4.5, linewidth=1.8, label=checkpoint_name(number),
            )  # fmt: skip
        sizes = sorted({size for curve in curves.values() for size in curve})
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(sizes))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        ax.set_xlabel("paths per question")
        ax.set_ylabel("accuracy of the vote")
        values = [value for curve in curves.values() for value in curve.values()]
        _percent(ax, max(0.0, min(values) - 0.06), min(1.0, max(values) + 0.06))
        _legend(ax)
        return _svg(figure)


def loss(curves: Mapping[int, Sequence[tuple[int, float]]]) -> str:
    """Fine-tuning loss against the step, for each round."""
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes()
        for number, points in curves.items():
            ax.plot(
                [step for step, _ in points], [value for _, value in points], color=checkpoint_colour(number),
                linestyle=_line(number), marker="o" if len(points) <= 20 else "", markersize=4, linewidth=1.6,
                label=checkpoint_name(number),
            )  # fmt: skip
        ax.set_xlabel("step")
        ax.set_ylabel("loss per target token (nats)")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.set_ylim(0, 1.08 * max(value for points in curves.values() for _, value in points))
        _legend(ax)
        return _svg(figure)


def vote_shares(bins: Mapping[int, Sequence[Bin]]) -> str:
    """The share of each round's questions in each bin of vote share."""
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes()
        for number, found in bins.items():
            colour, total = checkpoint_colour(number), sum(b.count for b in found)
            heights, edges = [b.count / total for b in found], [found[0].low, *(b.high for b in found)]
            ax.stairs(heights, edges, fill=True, color=colour, alpha=0.18)
            ax.stairs(heights, edges, color=colour, linewidth=1.6, label=checkpoint_name(number))
        ax.set_xlim(0, 1.01)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_xlabel("vote share of the answer")
        ax.set_ylabel("questions")
        _percent(ax, 0.0, 1.08 * max(b.count / sum(b.count for b in found) for found in bins.values() for b in found))
        _legend(ax)
        return _svg(figure)
