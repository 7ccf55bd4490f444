"""Checks the steps of sampled paths, without a model or JAX."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from etils import epath

from lmsi_jax.answers.numbers import plain
from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, fingerprint, read_jsonl, write_jsonl
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.stages.path_files import paths_by_question
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.trust.steps import CHECKS, CONTRACTS, Checked, check_paths


@dataclasses.dataclass(frozen=True)
class StepsSettings:
    """The reader of the answers that the paths declare. All checks are made; the vote chooses among their results."""

    reader: AnswerReader


def run_steps(runtime: object, settings: StepsSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Check each path of `paths` against its question in `questions`, and write a row of `steps` for each."""
    questions = {row["id"]: row for row in load_questions(inputs["questions"])}
    rows: list[Record] = []
    for paths in paths_by_question(inputs["paths"]):
        id = paths[0]["id"]
        if id not in questions:
            raise UserError(
                f"Question '{id}' of {inputs['paths']} is missing in {inputs['questions']}; both must be from one run."
            )
        answers = settings.reader.read(paths, questions[id]["choices"]).values
        checked = check_paths(questions[id]["question"], [path["text"] for path in paths], answers)
        for path, each in zip(paths, checked, strict=True):
            rows.append({"id": id, "path": path["path"], "text_hash": fingerprint(path["text"]), **_record(each)})
    write_jsonl(outputs["steps"], rows)
    _summarise(rows)


def _record(checked: Checked) -> Record:
    """Return the steps of a path, with the statements of each, and the checks that the path fails."""
    return {
        "steps": [
            {
                "start": step.start,
                "end": step.end,
                "verdict": step.verdict,
                "statements": [
                    {"start": each.start, "end": each.end, "verdict": each.verdict}
                    | ({} if each.expected is None else {"value": plain(each.expected)})
                    for each in step.statements
                ],
            }
            for step in checked.steps
        ],
        "failures": [dataclasses.asdict(failure) for failure in checked.failures],
    }


def read_failures(file: epath.Path) -> dict[str, dict[str, set[str]]]:
    """Return the names of the checks that each path of a question fails, by question id and a hash of the path's text."""
    failures: dict[str, dict[str, set[str]]] = {}
    for row in read_jsonl(file):
        try:
            failures.setdefault(row["id"], {})[row["text_hash"]] = {failure["check"] for failure in row["failures"]}
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{file}: the row {row!r:.120} is not one that `lmsi steps` writes; check the steps again."
            ) from error
    return failures


def _summarise(rows: Sequence[Record]) -> None:
    """Print the verdicts on statements, and how many paths fail each check."""
    verdicts = Counter(each["verdict"] for row in rows for step in row["steps"] for each in step["statements"])
    failed = Counter(name for row in rows for name in {failure["check"] for failure in row["failures"]})
    counted = ", ".join(f"{verdict.replace('_', ' ')} {count:,}" for verdict, count in verdicts.most_common()) or "none"
    shares = ", ".join(f"{name} {failed[name] / len(rows):.1%}" for name in (*CHECKS, *CONTRACTS) if failed[name]) or "none"
    console.print(f"steps: {len(rows):,} paths; statements: {counted}; paths that fail: {shares}")
