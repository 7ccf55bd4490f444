"""Prepares a run: questions without gold answers, gold answers in another file, held-out questions, and leaks."""

import dataclasses

from lmsi_jax.answers.reader import accepted_answers
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.tasks.config import QuestionConfig
from lmsi_jax.tasks.overlap import describe, overlap
from lmsi_jax.tasks.sources import question_source

GOLD = ("answer", "answers", "rationale")  # fields that no stage of a round may see


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """The seed and source of the questions."""

    seed: int
    questions: QuestionConfig


def run_prepare(runtime: object, settings: PrepareSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Write `questions` without gold answers, `gold` for the audit only, `held_out` questions and `leaks` (overlaps)."""
    source = question_source(settings.questions)
    rows, evaluation = source.training(settings.seed), source.held_out(settings.seed)
    leaks = overlap(rows, evaluation)
    if leaks:
        summary = describe(len(leaks.equal), len(leaks.shared), len(evaluation))
        console.print(f"prepare: {summary}; see {outputs['leaks']}")
    pairs = [("equal", pair) for pair in leaks.equal] + [("shared", pair) for pair in leaks.shared]
    write_jsonl(outputs["leaks"], ({"id": scored, "training_id": trained, "overlap": how} for how, (scored, trained) in pairs))
    known = [(r["id"], accepted_answers(r)) for r in rows if r.get("answer") is not None or r.get("answers")]
    write_jsonl(outputs["gold"], ({"id": id, "answer": accepted[0], "answers": accepted} for id, accepted in known))
    write_jsonl(outputs["held_out"], evaluation)
    write_jsonl(outputs["questions"], ({k: v for k, v in r.items() if k not in GOLD} for r in rows))
