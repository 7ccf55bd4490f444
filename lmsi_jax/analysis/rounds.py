"""The votes, labels and training rows of each group of records, audited against gold answers where there are any."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from lmsi_jax.analysis.plan import Planned, title
from lmsi_jax.answers.extract import canonical
from lmsi_jax.answers.reader import AnswerReader, accepted_answers, answers_by_path
from lmsi_jax.core.files import read_json
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.statistics import wilson_interval
from lmsi_jax.pipeline.run_folder import RunFolder

REASONS = {
    "empty": "empty text",
    "truncated": "cut off at the token limit",
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
REUSED = "reused from the store"


@dataclasses.dataclass(frozen=True)
class Round:
    """The records of one group, such as a round, as far as they exist."""

    group: str  # "rounds/1"
    votes: list[Record]
    formats: dict[str, int]  # training rows of each format
    trained: list[tuple[str, int]] | None  # (id, path) of the paths trained on; None before that stage
    missing: tuple[str, ...]  # planned records that do not exist yet, in words
    started: bool  # whether any of the planned records exist

    @property
    def name(self) -> str:
        return title(self.group)

    @property
    def status(self) -> str:
        """Why the group is unfinished, as a sentence; "" when it is complete."""
        if not self.missing:
            return ""
        if not self.started:
            return f"{self.name.capitalize()} has not started."
        *head, last = self.missing
        return f"{self.name.capitalize()} is unfinished: no {', '.join(head)}{' or ' if head else ''}{last} yet."


@dataclasses.dataclass(frozen=True)
class Gold:
    """The gold answers of training questions, for the audit only: all accepted answers by id, as they were written."""

    accepted: Mapping[str, Sequence[str]]
    reader: AnswerReader

    def __bool__(self) -> bool:
        return bool(self.accepted)

    def __contains__(self, id: str) -> bool:
        return id in self.accepted

    def right(self, id: str, answer: str | None) -> bool:
        """Return whether an answer to a question is right, by the rules of held-out scores."""
        return self.reader.is_right(answer, self.accepted[id])

    def shown(self, id: str) -> str | None:
        """Return the first gold answer of a question in canonical form, as the page shows it, or None when there is none."""
        return canonical(self.accepted[id][0], self.reader.answer_type) if id in self.accepted else None


@dataclasses.dataclass(frozen=True)
class LabelRow:
    """A row of the label table, with a cell for each round. `audit` marks a row that requires gold answers."""

    name: str
    cells: list[str]
    audit: bool = False
    part: bool = False  # whether it is a part of the row above


def read_gold(folder: RunFolder, reader: AnswerReader) -> Gold:
    """Return the gold answers of a run's training questions. Answers that are missing or cannot be read are left out."""
    rows = [row for row in read_jsonl(folder.gold) if row.get("answer") is not None] if folder.gold.exists() else []
    readable = [row for row in rows if canonical(accepted_answers(row)[0], reader.answer_type) is not None]
    return Gold({row["id"]: accepted_answers(row) for row in readable}, reader)


def read_rounds(folder: RunFolder, planned: Planned) -> list[Round]:
    """Return the groups of a run, as far as they exist."""
    return [_read_round(folder, group, planned) for group in planned.groups]


def _read_round(folder: RunFolder, group: str, planned: Planned) -> Round:
    records = {"paths": folder.paths(group), "votes": folder.votes(group), "training rows": folder.examples(group)}
    if f"{group}/pairs" in planned.stages:
        records["training rows"] = folder.pairs(group)
    present = {name: file.exists() for name, file in records.items()}
    trains = f"{group}/finetune"
    if trains in planned.stages:
        present["fine-tuned model"] = folder.manifest(trains).exists()
    votes = list(read_jsonl(records["votes"])) if present["votes"] else []
    formats: Counter[str] = Counter()
    trained: list[tuple[str, int]] | None = None
    if present["training rows"]:
        rows = list(read_jsonl(records["training rows"]))
        formats.update(row.get("format", "pairs") for row in rows)
        trained = list(dict.fromkeys((row["id"], row["paths"][0] if "paths" in row else row["path"]) for row in rows))
    missing = tuple(name for name, exists in present.items() if not exists)
    return Round(group, votes, dict(formats), trained, missing, started=any(present.values()))


def read_manifests(folder: RunFolder, planned: Planned) -> list[Record]:
    """Return the manifests of the finished stages, in run order, without that of the report."""
    files = folder.manifest("*").parent.glob("*.json")
    manifests = {m["stage"]: m for m in map(read_json, files)}
    order = [*planned.stages, *sorted(manifests.keys() - set(planned.stages))]
    return [manifests[name] for name in order if name in manifests and name != "report"]


def stage_times(manifests: Sequence[Record]) -> dict[str, tuple[float, dict[str, float]]]:
    """Return (seconds, seconds by category) of each stage by name."""
    return {m["stage"]: (float(m["seconds"]), {REUSED: 0.0} if m.get("reused") else m.get("times", {})) for m in manifests}


def label_precision(votes: Sequence[Record], gold: Gold) -> tuple[int, int]:
    """Return (right, all) of the voted answers whose question has a gold answer."""
    known = [gold.right(v["id"], v["answer"]) for v in votes if v["answer"] is not None and v["id"] in gold]
    return sum(known), len(known)


def label_rows(rounds: Sequence[Round], gold: Gold) -> list[LabelRow]:
    """Return the label table of rounds that have votes."""
    rows = [
        LabelRow("Questions voted", [f"{len(r.votes):,}" for r in rounds]),
        LabelRow("Paths", [f"{_paths(r):,}" for r in rounds]),
        LabelRow("Decided", [share(sum(v["answer"] is not None for v in r.votes), len(r.votes)) for r in rounds]),
        LabelRow("Mean vote share", [f"{sum(v['confidence'] for v in r.votes) / len(r.votes):.1%}" for r in rounds]),
    ]
    if gold:
        rows += [
            LabelRow("Label precision", [interval(*label_precision(r.votes, gold)) for r in rounds], audit=True),
            LabelRow("Precision of agreeing paths", [share(*_agreeing_precision(r, gold)) for r in rounds], audit=True),
            LabelRow("Precision of paths trained on", [share(*_trained_precision(r, gold)) for r in rounds], audit=True),
        ]
    rows += [
        LabelRow("Agreeing paths per question", [f"{sum(len(v['kept']) for v in r.votes) / len(r.votes):.1f}" for r in rounds]),
        LabelRow(
            "Training paths per question",
            [NOTHING if r.trained is None else f"{len(r.trained) / len(r.votes):.1f}" for r in rounds],
        ),
        LabelRow("Paths without an answer", [share(sum(_reasons(r).values()), _paths(r)) for r in rounds]),
    ]
    for reason in sorted({reason for r in rounds for reason in _reasons(r)}):
        shares = [share(_reasons(r)[reason], _paths(r)) for r in rounds]
        rows.append(LabelRow(REASONS.get(reason, reason), shares, part=True))
    rows.append(LabelRow("Training rows", [NOTHING if r.trained is None else f"{sum(r.formats.values()):,}" for r in rounds]))
    for name in dict.fromkeys(name for r in rounds for name in r.formats):
        counts = [NOTHING if r.trained is None else f"{r.formats.get(name, 0):,}" for r in rounds]
        rows.append(LabelRow(name, counts, part=True))
    return rows


def _paths(round: Round) -> int:
    return sum(v["num_paths"] for v in round.votes)


def _reasons(round: Round) -> Counter[str]:
    return Counter(a["reason"] for v in round.votes for a in v["abstained"])


def _agreeing_precision(round: Round, gold: Gold) -> tuple[int, int]:
    """Return (right, all) of the paths that agree with their vote: label precision, weighted by votes."""
    known = [(len(v["kept"]), gold.right(v["id"], v["answer"])) for v in round.votes if v["id"] in gold]
    return sum(n for n, right in known if right), sum(n for n, _ in known)


def _trained_precision(round: Round, gold: Gold) -> tuple[int, int]:
    """Return (right, all) of the paths that were trained on."""
    answers = {v["id"]: answers_by_path(v) for v in round.votes if v["id"] in gold}
    known = [gold.right(id, answers[id].get(path)) for id, path in round.trained or () if id in answers]
    return sum(known), len(known)


def share(part: int, total: int) -> str:
    """Return a share in percent, or a dash where there is nothing to count."""
    return f"{part / total:.1%}" if total else NOTHING


def interval(part: int, total: int) -> str:
    """Return a share with its 95% Wilson interval, or a dash."""
    if not total:
        return NOTHING
    low, high = wilson_interval(part, total)
    return f"{part / total:.1%} [{low:.1%}, {high:.1%}]"
