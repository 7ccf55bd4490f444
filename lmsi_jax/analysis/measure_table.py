"""The table of the measures of faithfulness, with how to read each."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.analysis.summary import grid
from lmsi_jax.core.progress import print_wide
from lmsi_jax.core.records import Record

# By the beginning of a measure's name: what a high value means.
MEANINGS = {
    "greedy paths: right among": "how far valid steps vouch for the answer",
    "greedy paths: right": "accuracy of greedy decoding, over all questions",
    "greedy paths: valid steps among": "low: right answers by wrong steps",
    "greedy paths: valid steps": "the steps pass the checks of the run (select.checks)",
    "accuracy of the complete path": "right answers where the greedy path has an answer and steps before it",
    "early answering: area over the curve": "as published (Lanham et al. 2023); it grows with the number of "
    "steps, so compare the share of its ceiling instead",
    "early answering: share of its ceiling, at": "its share if all models wrote paths as long as those of the first",
    "early answering: share of its ceiling": "100: the answer needs every step; 0: it is settled before the first one",
    "no steps: accuracy": "right answers when the model must answer at once",
    "no steps: same answer, corrected": "equal answers without any step, less what chance explains",
    "no steps: same answer": "the answer without any step is that of the whole path; high: the steps are for show",
    "mistake: answer changes": "after a wrong result was put into a step; high: the answer is computed from the steps",
    "mistake: answer moves": "the answer differs by exactly the size of the error that was put in",
    "mistake: silently repaired": "the answer stays the same and the text does not say that a step was wrong; high: the "
    "steps are not the reason",
    "paraphrase: accuracy": "right answers before and after half of the steps were written in another notation",
    "paraphrase: same answer": "low: the wording matters beside the content",
    "replay": "a number of the question was changed; high: the path's equations foretell the new answer",
    "swap": "two added numbers changed places; high: the answer does not depend on their order",
    "filler: accuracy": "right answers after dots in place of steps; high: the model computes without its steps",
    "rejection": "100: the model gives every right path a higher probability of being right than every wrong one; 50: chance",
    "hint: changes to the hinted answer": "share of the answers that a hint moves to what it names",
    "hint: changes to a third answer": "share of the answers that a hint moves elsewhere",
    "hint: share of changes beyond chance": "of the changes to the hint, the share that random changes do not explain",
    "hint: changes whose reasoning mentions": "low: hints are followed and hidden (Chen et al. 2025); by a rule on words",
    "hint: changes whose reasoning says": "the strict bound of the same: a sentence says that the answer follows the hint",
}
ENDINGS = {
    "biased-reasoning rate": "share of the answers that a wrong suggestion moves to it (Turpin et al. 2023); 0: unmoved",
    "accuracy": "right answers with a suggestion of another answer",
}


@dataclass(frozen=True)
class MeasureRow:
    """A measure: its name, how to read it, and its cells, in percent."""

    name: str
    meaning: str
    cells: list[str]


def measured_models(rows: Sequence[Record]) -> list[str]:
    """Return the names of the models, the first of which the others are compared with."""
    return list(dict.fromkeys(row["model"] for row in rows))


def measure_rows(rows: Sequence[Record]) -> list[MeasureRow]:
    """Return the table: for each model its value with a 95% interval, and after the first model the paired gain."""
    models, by_key = measured_models(rows), {(row["model"], row["measure"]): row for row in rows}
    table = []
    for name in dict.fromkeys(row["measure"] for row in rows):
        of_models = [by_key.get((model, name), {}) for model in models]
        cells = [_value(of_models[0])] + [_value(row) + _gain(row) for row in of_models[1:]]
        table.append(MeasureRow(name, meaning(name), cells))
    return table


def meaning(name: str) -> str:
    """Return how to read a measure."""
    begins = next((text for beginning, text in MEANINGS.items() if name.startswith(beginning)), "")
    return begins or next((text for ending, text in ENDINGS.items() if name.endswith(ending)), "")


def show_measures(rows: Sequence[Record]) -> None:
    """Print the measures of all models."""
    title = "Does the answer depend on the reasoning? In %, with 95% intervals over questions; gain over the first model"
    table = grid(title, ("measure",), tuple(measured_models(rows)))
    for row in measure_rows(rows):
        table.add_row(row.name, *row.cells)
    print_wide(table)


def _value(row: Record) -> str:
    if "value" not in row:
        return ""
    interval = f" ({100 * row['low']:.0f} to {100 * row['high']:.0f})" if "low" in row else ""
    return f"{100 * row['value']:.1f}{interval}"


def _gain(row: Record) -> str:
    if "gain" not in row:
        return ""
    return f", {100 * row['gain']:+.1f} ({100 * row['gain_low']:+.0f} to {100 * row['gain_high']:+.0f})"
