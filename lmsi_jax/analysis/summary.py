"""The headline table of a run: the accuracy of each prompting for each scored model."""

import dataclasses
from collections.abc import Sequence

from rich import box
from rich.table import Table

from lmsi_jax.analysis.plan import read_plan, title
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.evaluation.statistics import mcnemar, wilson_interval
from lmsi_jax.pipeline.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Scores:
    """The score rows of a run by (prompting, model). Other models are compared with the first of `models`."""

    models: list[str]
    rows: dict[tuple[str, str], list[Record]]

    def of(self, prompting: str) -> dict[str, list[Record]]:
        """Return the rows of one prompting by model, in the order of `models`."""
        return {model: self.rows[prompting, model] for model in self.models if self.rows.get((prompting, model))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One cell: accuracy over `n` questions with its 95% interval, and the gain over the first model on the same questions."""

    prompting: str
    model: str
    place: int  # index of the model among those of the run
    paths: int  # per question
    n: int
    accuracy: float
    low: float
    high: float
    gain: float | None  # difference of the accuracies
    p_value: float | None  # exact McNemar
    unparsed: float  # share of paths without an answer
    truncated: float  # share of paths cut off at the token limit


def read_scores(folder: RunFolder) -> Scores:
    """Return all stored scores of a run."""
    models, rows = read_plan(folder).models, {}
    for model in models:
        for prompting in PROMPTINGS:
            file = folder.scores(model, prompting)
            if file.exists():
                rows[prompting, model] = list(read_jsonl(file))
    return Scores(models, rows)


def summarise(scores: Scores) -> list[Score]:
    """Return one Score for each prompting and model, with the promptings in the paper's order."""
    summary = []
    for prompting in PROMPTINGS:
        by_model = scores.of(prompting)
        first = {r["id"]: r["correct"] for r in by_model.get(scores.models[0], [])} if by_model else {}
        for model, rows in by_model.items():
            n, correct = len(rows), sum(r["correct"] for r in rows)
            paths, place = sum(r["num_paths"] for r in rows), scores.models.index(model)
            pairs = [(first[r["id"]], r["correct"]) for r in rows if r["id"] in first]
            paired = bool(place and pairs)
            low, high = wilson_interval(correct, n)
            summary.append(
                Score(
                    prompting=prompting,
                    model=model,
                    place=place,
                    paths=rows[0]["num_paths"],
                    n=n,
                    accuracy=correct / n,
                    low=low,
                    high=high,
                    gain=sum(b - a for a, b in pairs) / len(pairs) if paired else None,
                    p_value=mcnemar([a for a, _ in pairs], [b for _, b in pairs]) if paired else None,
                    unparsed=sum(r["unparsed"] for r in rows) / paths,
                    truncated=sum(r["truncated"] for r in rows) / paths,
                )
            )
    return summary


def p_text(p_value: float) -> str:
    """Return a p-value as text: "0.012", or "6e-20" when it is below 0.001."""
    return f"{p_value:.0e}" if p_value < 1e-3 else f"{p_value:.3f}"


def grid(title: str, texts: Sequence[str], numbers: Sequence[str], caption: str = "") -> Table:
    """An empty table for a terminal, with columns of texts on the left and columns of numbers on the right."""
    table = Table(title=title, caption=caption or None, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def score_table(rows: list[Score]) -> Table:
    """Return the table for a terminal of 80 columns. Accuracies and shares are in percent, gains in percentage points."""
    table = grid(
        "Accuracy on held-out questions in %, with 95% intervals",
        ("prompting", "model"),
        ("m", "n", "accuracy", "gain", "p", "unread", "cut"),
        "m: paths; gain, p: against the first model, exact McNemar; unread, cut: % of paths",
    )
    for row in rows:
        table.add_row(
            PROMPTINGS[row.prompting],
            title(row.model),
            str(row.paths),
            str(row.n),
            f"{100 * row.accuracy:.1f} ({100 * row.low:.0f}-{100 * row.high:.0f})",
            "" if row.gain is None else f"{100 * row.gain:+.1f}",
            "" if row.p_value is None else p_text(row.p_value),
            f"{100 * row.unparsed:.1f}",
            f"{100 * row.truncated:.1f}",
        )
    return table
