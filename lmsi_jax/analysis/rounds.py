"""What each round made: votes, labels and training rows, with an audit against gold answers where there are any."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from lmsi_jax.core.files import read_json
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.statistics import wilson_interval
from lmsi_jax.tasks.answers import canonical
from lmsi_jax.tasks.reading import accepted_answers, answers_by_path, is_right

# What a finished round has left in its folder, in the order in which it comes to be.
PRODUCTS = {"paths.jsonl": "paths", "votes.jsonl": "votes", "examples.jsonl": "training rows", "model": "fine-tuned model"}
REASONS = {
    "empty": "empty text",
    "truncated": "cut at the longest length",
    "no_answer_phrase": "no “answer is”",
    "no_number": "no number after “answer is”",
    "no_choice": "no choice after “answer is”",
    "no_yes_no": "no yes or no after “answer is”",
    "no_text": "nothing after “answer is”",
    "no_span": "nothing after “answer is”",
    "no_math": "no expression after “answer is”",
    "hedged": "“it depends” after the last answer",
}
NOTHING = "–"


@dataclasses.dataclass(frozen=True)
class Round:
    """One round as far as it has come."""

    number: int
    folder: epath.Path
    votes: list[Record]
    formats: dict[str, int]  # training rows of each format
    trained: list[tuple[str, int]] | None  # (id, path) of the paths trained on; None before that stage
    missing: tuple[str, ...]  # values of PRODUCTS

    @property
    def status(self) -> str:
        """Why the round is unfinished, as a sentence; empty when it is done."""
        if not self.missing:
            return ""
        if len(self.missing) == len(PRODUCTS):
            return f"Round {self.number} has not begun."
        *head, last = self.missing
        return f"Round {self.number} is unfinished: no {', '.join(head)}{' or ' if head else ''}{last} yet."


@dataclasses.dataclass(frozen=True)
class Gold:
    """The gold answers of training questions, for the audit alone: by id all that are accepted, as they were written."""

    accepted: Mapping[str, Sequence[str]]
    answer_type: str

    def __bool__(self) -> bool:
        return bool(self.accepted)

    def __contains__(self, id: str) -> bool:
        return id in self.accepted

    def right(self, id: str, answer: str | None) -> bool:
        """Is an answer to a question right, as scores of held-out questions judge it?"""
        return is_right(answer, self.accepted[id], self.answer_type)

    def shown(self, id: str) -> str | None:
        """The gold answer of a question as a page shows it; None where there is none."""
        return canonical(self.accepted[id][0], self.answer_type) if id in self.accepted else None


@dataclasses.dataclass(frozen=True)
class LabelRow:
    """A row of the label table, a cell for each round. `audit`: needs gold answers."""

    name: str
    cells: list[str]
    audit: bool = False
    part: bool = False  # of the row above


def read_gold(workdir: epath.Path, answer_type: str) -> Gold:
    """The gold answers of a run's training questions; questions without a readable one are left out."""
    file = workdir / "audit" / "gold.jsonl"
    rows = [row for row in read_jsonl(file) if row.get("answer") is not None] if file.exists() else []
    readable = [row for row in rows if canonical(accepted_answers(row)[0], answer_type) is not None]
    return Gold({row["id"]: accepted_answers(row) for row in readable}, answer_type)


def read_rounds(workdir: epath.Path, planned: int) -> list[Round]:
    """The rounds that are planned, as far as they have come."""
    return [_read_round(workdir / "rounds" / str(number), number) for number in range(1, planned + 1)]


def _read_round(folder: epath.Path, number: int) -> Round:
    present = {name for name in PRODUCTS if (folder / name).exists()}
    votes = list(read_jsonl(folder / "votes.jsonl")) if "votes.jsonl" in present else []
    formats: Counter[str] = Counter()
    trained: list[tuple[str, int]] | None = None
    if "examples.jsonl" in present:
        rows = list(read_jsonl(folder / "examples.jsonl"))
        formats.update(row["format"] for row in rows)
        trained = list(dict.fromkeys((row["id"], row["path"]) for row in rows))
    missing = tuple(words for name, words in PRODUCTS.items() if name not in present)
    return Round(number, folder, votes, dict(formats), trained, missing)


def throughput(metrics: Sequence[Record]) -> float | None:
    """Median tokens per second of a stage."""
    values = sorted(r["tokens_per_second"] for r in metrics if "tokens_per_second" in r)
    return values[len(values) // 2] if values else None


def metric_rows(workdir: epath.Path, name: str) -> list[Record]:
    """Rows of a metrics file."""
    return read_metrics(workdir / "metrics" / f"{name}.jsonl")


def stage_times(workdir: epath.Path) -> dict[str, tuple[float, dict[str, float]]]:
    """Seconds of each finished stage by name, in all and by kind, in the order of the run; but for the report's own."""
    manifests = [read_json(file) for file in (workdir / "manifests").glob("*.json")]
    found = {m["stage"]: (float(m["seconds"]), m.get("times", {})) for m in manifests if m["stage"] != "report"}
    steps = ("prepare", "sample", "vote", "format", "finetune", "evaluate")

    def order(name: str) -> tuple[int, int]:
        parts = name.split("/")
        number = int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0
        return number if parts[-1] != "prepare" else -1, steps.index(parts[-1]) if parts[-1] in steps else len(steps)

    return dict(sorted(found.items(), key=lambda item: (*order(item[0]), item[0])))


def label_precision(votes: Sequence[Record], gold: Gold) -> tuple[int, int]:
    """(right, all) of the voted answers whose question has a gold answer."""
    known = [gold.right(v["id"], v["answer"]) for v in votes if v["answer"] is not None and v["id"] in gold]
    return sum(known), len(known)


def label_rows(rounds: Sequence[Round], gold: Gold) -> list[LabelRow]:
    """The label table of the rounds that have votes."""

    def row(name: str, cell: Callable[[Round], str], audit: bool = False, part: bool = False) -> LabelRow:
        return LabelRow(name, [cell(r) for r in rounds], audit, part)

    rows = [
        row("Questions voted", lambda r: f"{len(r.votes):,}"),
        row("Paths", lambda r: f"{_paths(r):,}"),
        row("Decided", lambda r: _share(sum(v["answer"] is not None for v in r.votes), len(r.votes))),
        row("Mean vote share", lambda r: f"{sum(v['confidence'] for v in r.votes) / len(r.votes):.1%}"),
    ]
    if gold:
        rows += [
            row("Label precision", lambda r: _interval(*label_precision(r.votes, gold)), audit=True),
            row("Precision of agreeing paths", lambda r: _share(*_agreeing_precision(r, gold)), audit=True),
            row("Precision of paths trained on", lambda r: _share(*_trained_precision(r, gold)), audit=True),
        ]
    rows += [
        row("Agreeing paths per question", lambda r: f"{sum(len(v['kept']) for v in r.votes) / len(r.votes):.1f}"),
        row("Trained on, per question", lambda r: NOTHING if r.trained is None else f"{len(r.trained) / len(r.votes):.1f}"),
        row("Paths without an answer", lambda r: _share(sum(_reasons(r).values()), _paths(r))),
    ]
    for reason in sorted({reason for r in rounds for reason in _reasons(r)}):
        name = REASONS.get(reason, reason)
        rows.append(row(name, functools.partial(_share_of, reason), part=True))
    rows.append(row("Training rows", lambda r: NOTHING if r.trained is None else f"{sum(r.formats.values()):,}"))
    for name in dict.fromkeys(name for r in rounds for name in r.formats):
        rows.append(row(name, functools.partial(_rows_of, name), part=True))
    return rows


def _paths(round: Round) -> int:
    return sum(v["num_paths"] for v in round.votes)


def _reasons(round: Round) -> Counter[str]:
    return Counter(a["reason"] for v in round.votes for a in v["abstained"])


def _share_of(reason: str, round: Round) -> str:
    return _share(_reasons(round)[reason], _paths(round))


def _rows_of(format: str, round: Round) -> str:
    return NOTHING if round.trained is None else f"{round.formats.get(format, 0):,}"


def _agreeing_precision(round: Round, gold: Gold) -> tuple[int, int]:
    """(right, all) of the paths that agree with their vote: label precision, weighted by votes."""
    known = [(len(v["kept"]), gold.right(v["id"], v["answer"])) for v in round.votes if v["id"] in gold]
    return sum(n for n, right in known if right), sum(n for n, _ in known)


def _trained_precision(round: Round, gold: Gold) -> tuple[int, int]:
    """(right, all) of the paths that were trained on."""
    answers = {v["id"]: answers_by_path(v) for v in round.votes if v["id"] in gold}
    known = [gold.right(id, answers[id].get(path)) for id, path in round.trained or () if id in answers]
    return sum(known), len(known)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else NOTHING


def _interval(part: int, whole: int) -> str:
    if not whole:
        return NOTHING
    low, high = wilson_interval(part, whole)
    return f"{part / whole:.1%} [{low:.1%}, {high:.1%}]"
