"""The headline table of a run: each prompting before and after each round."""

import dataclasses

from etils import epath
from rich import box
from rich.table import Table

from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.statistics import mcnemar, wilson_interval

TITLES = {"standard": "Standard", "cot": "CoT, greedy", "self_consistency": "Self-consistency"}


@dataclasses.dataclass(frozen=True)
class Score:
    """One cell: accuracy over `n` questions with its 95% interval, against the base model on the same questions."""

    prompting: str
    checkpoint: int
    paths: int
    n: int
    accuracy: float
    low: float
    high: float
    gain: float | None  # over checkpoint 0, as a share of all questions
    p_value: float | None  # exact McNemar against checkpoint 0
    unparsed: float  # share of paths without an answer
    truncated: float  # share of paths cut at their longest


def read_scores(workdir: epath.Path) -> dict[tuple[str, int], list[Record]]:
    """The score rows of a run by (prompting, checkpoint)."""
    found = {}
    folders = [folder for folder in (workdir / "eval").glob("*") if folder.name.isdigit()]
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        for prompting in TITLES:
            file = folder / f"{prompting}.jsonl"
            if file.exists():
                found[prompting, int(folder.name)] = list(read_jsonl(file))
    return found


def summarise(scores: dict[tuple[str, int], list[Record]]) -> list[Score]:
    """One Score for each prompting and checkpoint, promptings in the paper's order."""
    rows = []
    for prompting in TITLES:
        base = {r["id"]: r["correct"] for r in scores.get((prompting, 0), [])}
        for (name, checkpoint), found in scores.items():
            if name != prompting or not found:
                continue
            n, correct = len(found), sum(r["correct"] for r in found)
            paths = sum(r["num_paths"] for r in found)
            pairs = [(base[r["id"]], r["correct"]) for r in found if r["id"] in base]
            paired = bool(checkpoint and pairs)
            p_value = mcnemar([a for a, _ in pairs], [b for _, b in pairs]) if paired else None
            gain = sum(b - a for a, b in pairs) / len(pairs) if paired else None
            rows.append(
                Score(
                    prompting,
                    checkpoint,
                    found[0]["num_paths"],
                    n,
                    correct / n,
                    *wilson_interval(correct, n),
                    gain,
                    p_value,
                    sum(r["unparsed"] for r in found) / paths,
                    sum(r["truncated"] for r in found) / paths,
                )
            )
    return rows


def p_text(p_value: float) -> str:
    return f"{p_value:.0e}" if p_value < 1e-3 else f"{p_value:.3f}"


def checkpoint_name(number: int) -> str:
    return "base" if number == 0 else f"round {number}"


def print_table(rows: list[Score]) -> Table:
    """The table for a terminal of 80 columns; all but counts and p-values in percent, or points of it."""
    table = Table(
        title="Accuracy on held-out questions in %, with 95% intervals",
        caption="m: paths; gain, p: against base, exact McNemar; unread, cut: % of paths",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for title in ("prompting", "model", "m", "n", "accuracy", "gain", "p", "unread", "cut"):
        table.add_column(title, justify="left" if title in ("prompting", "model") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            TITLES[row.prompting],
            checkpoint_name(row.checkpoint),
            str(row.paths),
            str(row.n),
            f"{100 * row.accuracy:.1f} ({100 * row.low:.0f}-{100 * row.high:.0f})",
            "" if row.gain is None else f"{100 * row.gain:+.1f}",
            "" if row.p_value is None else p_text(row.p_value),
            f"{100 * row.unparsed:.1f}",
            f"{100 * row.truncated:.1f}",
        )
    return table
