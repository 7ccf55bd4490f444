"""Comparisons of two checkpoints as tables for a terminal, laid out as in the paper's tables 3 and 4."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from lmsi_jax.analysis.summary import TITLES, p_text
from lmsi_jax.evaluation.compare import PROMPTINGS, Comparison, Side
from lmsi_jax.evaluation.statistics import Estimate

DOMAINS = {"in": "In-domain", "out": "Out-of-domain", "": "Other tasks"}


def tables(found: Sequence[Comparison]) -> Iterator[Table | Text]:
    """One table of accuracies for each domain, one of what can be said of the differences, and what to know when reading it."""
    for domain, title in DOMAINS.items():
        rows = [row for row in found if row.domain == domain]
        if rows:
            yield _accuracies(rows, title)
    yield _differences(found)
    for row in found:
        if row.before.temperature != row.after.temperature:
            yield Text(
                f"{row.task}, {TITLES[row.prompting]}: temperature {row.before.temperature:g} before and "
                f"{row.after.temperature:g} after. The gain is of both the checkpoint and the temperature."
            )
    sampled = [row for row in found if row.after.paths > 1]
    if sampled:
        yield _by_paths(sampled)


def _accuracies(rows: Sequence[Comparison], title: str) -> Table:
    """Promptings before and after down, tasks across."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    by_key = {(row.task, row.prompting): row for row in rows}
    table = Table(title=f"{title}: accuracy in %, with 95% intervals", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("prompting", "", *tasks):
        table.add_column(name, justify="left" if name in ("prompting", "") else "right", no_wrap=True)
    for prompting in PROMPTINGS:
        if not any((task, prompting) in by_key for task in tasks):
            continue
        for when in ("before", "after"):
            cells = [_cell(getattr(by_key[task, prompting], when)) if (task, prompting) in by_key else "–" for task in tasks]
            table.add_row(TITLES[prompting] if when == "before" else "", when, *cells)
    return table


def _cell(side: Side) -> str:
    return _estimate(side.accuracy) if side.f1 is None else f"{_estimate(side.accuracy)} F1 {_estimate(side.f1)}"


def _estimate(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.0f}–{100 * estimate.high:.0f})"


def _differences(rows: Sequence[Comparison]) -> Table:
    table = Table(
        title="Gains in points, before to after",
        caption="95%: interval of the mean of paired gains (Gaffke 2005); p: exact McNemar; p Holm: over all rows; "
        "ECE: calibration error of the vote share; unread, cut: % of paths; all three after",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("task", "prompting", "m", "n", "gain", "95%", "p", "p Holm", "ECE", "unread", "cut"):
        table.add_column(name, justify="left" if name in ("task", "prompting") else "right", no_wrap=True)
    for row in rows:
        after = row.after
        table.add_row(
            row.task,
            TITLES[row.prompting],
            str(after.paths) if after.paths == row.before.paths else f"{row.before.paths}→{after.paths}",
            str(row.n),
            f"{100 * row.gain:+.1f}",
            f"{100 * row.gain_low:+.1f} {100 * row.gain_high:+.1f}",
            p_text(row.p_value),
            p_text(row.p_holm),
            f"{after.calibration_error:.3f}",
            f"{100 * after.unparsed:.1f}",
            f"{100 * after.truncated:.1f}",
        )
    return table


def _by_paths(rows: Sequence[Comparison]) -> Table:
    """Votes and coverage over fewer paths, estimated from those stored."""
    sizes = sorted({size for row in rows for size in row.after.vote_at})
    table = Table(
        title="By number of paths, in %, with 95% intervals over questions and paths",
        caption="vote@k: majority of k paths (k = 1: one path, mean@m); pass@k: one of k is right",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("task", "", "", *(f"k={size}" for size in sizes)):
        table.add_column(name, justify="right" if name.startswith("k=") else "left", no_wrap=True)
    for row in rows:
        for when in ("before", "after"):
            side = getattr(row, when)
            for what, found in (("vote@k", side.vote_at), ("pass@k", side.pass_at)):
                cells = [_estimate(found[size]) if size in found else "–" for size in sizes]
                table.add_row(row.task if what == "vote@k" and when == "before" else "", when, what, *cells)
    return table
