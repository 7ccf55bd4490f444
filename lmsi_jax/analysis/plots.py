"""Draw the figures of the report as inline SVG, with text as text and colours as CSS variables of the page."""

import functools
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from lmsi_jax.analysis.plan import title
from lmsi_jax.analysis.summary import Score
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.evaluation.statistics import Estimate, wilson_interval
from lmsi_jax.voting.calibration import Bin

T = TypeVar("T")
# Figures are drawn in these colours, which CSS variables then replace, so that light and dark pages share one drawing. The
# series use the palette of Okabe and Ito, which colour-blind readers can distinguish: first model, other models, promptings.
COLOURS = {
    "#101010": "ink", "#606060": "muted", "#d0d0d0": "rule",
    "#888888": "base", "#0072b2": "blue", "#d55e00": "vermillion", "#56b4e9": "sky", "#f0e442": "yellow",
    "#e69f00": "orange", "#009e73": "green", "#cc79a7": "purple",
}  # fmt: skip
HEX = {name: colour for colour, name in COLOURS.items()}
ROUND_COLOURS = ("blue", "vermillion", "sky", "yellow")
LEGEND_WIDTH = 52  # characters of a line of the legend
NAME_WIDTH = 26  # characters of a line of an arm's name
MOST_BARRED = 2  # with more models, the plot of vote shares has no intervals
PROMPTING_STYLES = {
    "standard": ("orange", "s"),
    "cot": ("green", "o"),
    "self_consistency": ("purple", "^"),
    "valid_first": ("blue", "D"),
}
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


class Series(NamedTuple):
    """A line of a plot: its name, and its place in the run (0 for the first model), which determines its colour."""

    place: int
    name: str

    @property
    def colour(self) -> str:
        return HEX["base" if self.place == 0 else ROUND_COLOURS[(self.place - 1) % len(ROUND_COLOURS)]]

    @property
    def line(self) -> str:
        """The line style, which is dashed for series beyond the palette."""
        return "-" if self.place <= len(ROUND_COLOURS) else "--"


def _drawing(draw: Callable[[Axes, T], None]) -> Callable[[T], Markup]:
    """Turn a function that draws data on axes into one that returns the drawing of the data, with a legend, as SVG."""

    @functools.wraps(draw, assigned=("__module__", "__name__", "__qualname__", "__doc__"))  # its types are other ones
    def svg(data: T) -> Markup:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(5.4, 3.7), layout="constrained")
            ax = figure.subplots()
            draw(ax, data)
            if names := ax.get_legend_handles_labels()[1]:
                columns = max(1, min(4, LEGEND_WIDTH // (max(map(len, names)) + 4)))  # 4 characters for the marker
                ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.03), ncols=columns)
            return _svg(figure)

    return svg


def _percent(ax: Axes, low: float, high: float) -> None:
    """Set the vertical axis to shares from `low` to `high`, with whole percents at its ticks."""
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Type", "Format"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ids of groups repeat from figure to figure, but must be unique on a page. Nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    return Markup(re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{COLOURS[m[0]]})" if m[0] in COLOURS else m[0], text))


@_drawing
def accuracy_per_model(ax: Axes, rows: Sequence[Score]) -> None:
    """Draw accuracy by model: one line for each prompting, with 95% intervals."""
    used = [name for name in PROMPTINGS if any(r.prompting == name for r in rows)]
    for place, name in enumerate(used):
        colour, marker = PROMPTING_STYLES[name]
        scored = [r for r in rows if r.prompting == name]
        x = [r.place + 0.05 * (place - (len(used) - 1) / 2) for r in scored]  # shifted, so that intervals do not overlap
        error = [[max(0.0, r.accuracy - r.low) for r in scored], [max(0.0, r.high - r.accuracy) for r in scored]]
        values = [r.accuracy for r in scored]
        ax.errorbar(
            x, values, error, color=HEX[colour], marker=marker, markersize=6, linewidth=1.8, elinewidth=1.1, capsize=3,
            label=PROMPTINGS[name],
        )  # fmt: skip
    names = {r.place: title(r.model) for r in rows}
    ax.set_xlim(-0.35, max(names) + 0.35)
    ax.xaxis.set_major_locator(FixedLocator(sorted(names)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(round(value), "")))
    ax.grid(False, axis="x")
    ax.set_ylabel("accuracy")
    _percent(ax, -0.03, 1.03)


@_drawing
def accuracy_by_arm(ax: Axes, arms: Sequence[tuple[str, Estimate, Estimate | None]]) -> None:
    """Draw (arm, accuracy after training, before training) of a study, with 95% intervals; those before training are grey."""
    for colour, label, estimates in (
        ("base", "before", [before for _, _, before in arms]),
        ("blue", "after", [after for _, after, _ in arms]),
    ):
        known = [(place, each) for place, each in enumerate(estimates) if each is not None]
        x, y = [each.value for _, each in known], [place for place, _ in known]
        error = [[max(0.0, e.value - e.low) for _, e in known], [max(0.0, e.high - e.value) for _, e in known]]
        if known:
            ax.errorbar(x, y, xerr=error, color=HEX[colour], marker="o", markersize=5, linestyle="", capsize=3, label=label)
    names = {place: textwrap.fill(name, NAME_WIDTH) for place, (name, _, _) in enumerate(arms)}
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.yaxis.set_major_locator(FixedLocator(list(names)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(round(value), "")))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.grid(False, axis="y")
    ax.set_xlabel("accuracy")


@_drawing
def accuracy_by_share(ax: Axes, bins: Mapping[Series, Sequence[Bin]]) -> None:
    """Draw accuracy by vote share for each model. A marker's area shows the number of questions in its bin."""
    ax.plot([0, 1], [0, 1], color=HEX["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
    most = max((b.count for binned in bins.values() for b in binned), default=1)
    for series, binned in bins.items():
        filled = [b for b in binned if b.count]
        colour = series.colour
        x, y = [b.mean_confidence for b in filled], [b.correct / b.count for b in filled]
        if len(bins) <= MOST_BARRED:
            limits = [wilson_interval(b.correct, b.count) for b in filled]
            ax.vlines(x, [low for low, _ in limits], [high for _, high in limits], color=colour, linewidth=1.0, alpha=0.45)
        ax.plot(x, y, color=colour, linewidth=1.3, linestyle=series.line, alpha=0.8)
        sizes = [max(9.0, 260.0 * b.count / max(most, 1)) for b in filled]
        ax.scatter(x, y, sizes, color=colour, alpha=0.85, linewidths=0, zorder=3)
        ax.scatter([], [], 36.0, color=colour, label=series.name)  # the marker of the legend, of fixed size
    ax.set_xlim(0, 1.03)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("vote share of the answer")
    ax.set_ylabel("accuracy")
    _percent(ax, -0.03, 1.05)


@_drawing
def accuracy_by_number_of_paths(ax: Axes, curves: Mapping[Series, Mapping[int, float]]) -> None:
    """Draw the accuracy of the vote over k paths against k, for each model."""
    for series, curve in curves.items():
        ax.plot(
            list(curve), list(curve.values()), color=series.colour, linestyle=series.line, marker="o",
            markersize=4.5, linewidth=1.8, label=series.name,
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


@_drawing
def loss(ax: Axes, curves: Mapping[Series, Sequence[tuple[int, float]]]) -> None:
    """Draw the loss against the step, for each stage that trains."""
    for series, points in curves.items():
        ax.plot(
            [step for step, _ in points], [value for _, value in points], color=series.colour,
            linestyle=series.line, marker="o" if len(points) <= 20 else "", markersize=4, linewidth=1.6,
            label=series.name,
        )  # fmt: skip
    ax.set_xlabel("step")
    ax.set_ylabel("loss per target token (nats)")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_ylim(0, 1.08 * max(value for points in curves.values() for _, value in points))


@_drawing
def course(ax: Axes, curves: Mapping[Series, Sequence[tuple[int, float]]]) -> None:
    """Draw values of about 0 to 1 against the step of reinforcement learning; at most four, whose names fit above the plot."""
    for series, points in curves.items():
        x, y = [step for step, _ in points], [value for _, value in points]
        few = len(points) <= 40
        ax.plot(
            x, y, color=series.colour, linestyle=series.line, marker="o" if few else "", markersize=4,
            linewidth=1.6 if few else 0.9, label=series.name,
        )  # fmt: skip
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _logarithmic(ax: Axes, lines: Sequence[tuple[Series, Sequence[tuple[float, float]]]], x_label: str, y_label: str) -> None:
    """Draw lines on logarithmic axes; those of one series have one entry in the legend."""
    named = set[Series]()
    for series, points in lines:
        x, y = [at for at, _ in points], [value for _, value in points]
        label = "" if series in named else series.name
        named.add(series)
        ax.plot(x, y, color=series.colour, linestyle=series.line, marker="o", markersize=3.5, linewidth=1.4, label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)


def loss_by(lines: Sequence[tuple[Series, Sequence[tuple[float, float]]]], x_label: str) -> Markup:
    """Return a drawing of losses against a quantity, both on logarithmic axes."""

    @_drawing
    def draw(ax: Axes, lines: Sequence[tuple[Series, Sequence[tuple[float, float]]]]) -> None:
        _logarithmic(ax, lines, x_label, "held-out loss (nats a token)")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    return draw(lines)


@_drawing
def optimal_params(ax: Axes, lines: Sequence[tuple[Series, Sequence[tuple[float, float]]]]) -> None:
    """Draw the best number of parameters against compute, with a line for each approach."""
    _logarithmic(ax, lines, "floating-point operations", "parameters")


@_drawing
def vote_shares(ax: Axes, bins: Mapping[Series, Sequence[Bin]]) -> None:
    """Draw the share of each group's questions in each bin of vote share."""
    for series, binned in bins.items():
        colour, total = series.colour, sum(b.count for b in binned)
        heights, edges = [b.count / total for b in binned], [binned[0].low, *(b.high for b in binned)]
        ax.stairs(heights, edges, fill=True, color=colour, alpha=0.18)
        ax.stairs(heights, edges, color=colour, linewidth=1.6, label=series.name)
    ax.set_xlim(0, 1.01)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("vote share of the answer")
    ax.set_ylabel("questions")
    _percent(ax, 0.0, 1.08 * max(b.count / sum(b.count for b in binned) for binned in bins.values() for b in binned))
