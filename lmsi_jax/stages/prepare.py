"""Prepares a run: questions without gold answers, gold answers in another file, held-out questions, and leaks."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from lmsi_jax.answers.reader import accepted_answers
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, write_jsonl
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.tasks.broken import broken_questions
from lmsi_jax.tasks.config import QuestionConfig
from lmsi_jax.tasks.overlap import describe, overlap
from lmsi_jax.tasks.questions import GOLD
from lmsi_jax.tasks.sources import question_source


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """The seed and source of the questions."""

    seed: int
    questions: QuestionConfig


def run_prepare(runtime: object, settings: PrepareSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Write `questions` without gold answers, `gold` for the audit only, `held_out` questions and `leaks` (overlaps)."""
    source = question_source(settings.questions)
    rows, evaluation = source.training(settings.seed), source.held_out(settings.seed)
    rows = broken_questions(rows, settings.questions.broken, settings.seed)
    write_leaks(rows, evaluation, outputs["leaks"])
    known = [(r["id"], accepted_answers(r)) for r in rows if r.get("answer") is not None or r.get("answers")]
    write_jsonl(outputs["gold"], ({"id": id, "answer": accepted[0], "answers": accepted} for id, accepted in known))
    write_jsonl(outputs["held_out"], evaluation)
    write_jsonl(outputs["questions"], ({k: v for k, v in r.items() if k not in GOLD} for r in rows))


def write_leaks(training: Sequence[Record], scored: Sequence[Record], file: epath.Path) -> None:
    """Write the scored questions that overlap with questions to train on, and print how many there are."""
    leaks = overlap(training, scored)
    if leaks:
        console.print(f"{describe(len(leaks.equal), len(leaks.shared), len(scored))}; see {file}")
    pairs = [("equal", pair) for pair in leaks.equal] + [("shared", pair) for pair in leaks.shared]
    write_jsonl(file, ({"id": id, "training_id": trained, "overlap": how} for how, (id, trained) in pairs))
