"""Tables for a terminal that compare two checkpoints, laid out as the paper's tables 3 and 4."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from lmsi_jax.analysis.summary import grid, p_text
from lmsi_jax.evaluation.compare import Comparison, Side
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.evaluation.statistics import Estimate

DOMAINS = {"in": "In-domain", "out": "Out-of-domain", "": "Other tasks"}


def tables(comparisons: Sequence[Comparison]) -> Iterator[Table | Text]:
    """Yield tables of the accuracies in each domain, of gains and tests, and of scores by number of paths, with notes."""
    for domain, title in DOMAINS.items():
        rows = [row for row in comparisons if row.domain == domain]
        if rows:
            yield _accuracies(rows, title)
    yield _differences(comparisons)
    for row in comparisons:
        if row.before.temperature != row.after.temperature:
            yield Text(
                f"{row.task}, {PROMPTINGS[row.prompting]}: temperature {row.before.temperature:g} before and "
                f"{row.after.temperature:g} after. The gain has two causes: the checkpoint and the temperature."
            )
    sampled = [row for row in comparisons if row.after.paths > 1]
    if sampled:
        yield _by_paths(sampled)


def _accuracies(rows: Sequence[Comparison], title: str) -> Table:
    """Return a table with a row for each prompting before and after, and a column for each task."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    by_key = {(row.task, row.prompting): row for row in rows}
    table = grid(f"{title}: accuracy in %, with 95% intervals", ("prompting", ""), tasks)
    for prompting in PROMPTINGS:
        if not any((task, prompting) in by_key for task in tasks):
            continue
        for when in ("before", "after"):
            cells = [_cell(getattr(by_key[task, prompting], when)) if (task, prompting) in by_key else "–" for task in tasks]
            table.add_row(PROMPTINGS[prompting] if when == "before" else "", when, *cells)
    return table


def _cell(side: Side) -> str:
    return _estimate(side.accuracy) if side.f1 is None else f"{_estimate(side.accuracy)} F1 {_estimate(side.f1)}"


def _estimate(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.0f}–{100 * estimate.high:.0f})"


def _differences(rows: Sequence[Comparison]) -> Table:
    table = grid(
        "Gains in points, before to after",
        ("task", "prompting"),
        ("m", "n", "gain", "95%", "p", "p Holm", "ECE", "unread", "cut"),
        "95%: interval of the mean of paired gains (Gaffke 2005); p: exact McNemar; p Holm: over all rows; "
        "ECE: calibration error of the vote share; unread, cut: % of paths; all three after",
    )
    for row in rows:
        after = row.after
        table.add_row(
            row.task,
            PROMPTINGS[row.prompting],
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
    """Return a table of vote and coverage over fewer paths, estimated from the stored ones."""
    sizes = sorted({size for row in rows for size in row.after.vote_at})
    table = grid(
        "By number of paths, in %, with 95% intervals over questions and paths",
        ("task", "", ""),
        [f"k={size}" for size in sizes],
        "vote@k: vote of k paths (k = 1: one path, mean@m); pass@k: one of k is right",
    )
    for row in rows:
        name = row.task if row.prompting == "self_consistency" else f"{row.task}, {PROMPTINGS[row.prompting].lower()}"
        for when in ("before", "after"):
            side = getattr(row, when)
            for metric, estimates in (("vote@k", side.vote_at), ("pass@k", side.pass_at)):
                cells = [_estimate(estimates[size]) if size in estimates else "–" for size in sizes]
                table.add_row(name if metric == "vote@k" and when == "before" else "", when, metric, *cells)
    return table
