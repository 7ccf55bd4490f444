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
from lmsi_jax.tasks.near_copies import near_copies
from lmsi_jax.tasks.overlap import describe, overlap
from lmsi_jax.tasks.prompts import with_choices
from lmsi_jax.tasks.questions import GOLD
from lmsi_jax.tasks.sources import question_source


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """The seed and source of the questions, and the questions of the prompt's exemplars."""

    seed: int
    questions: QuestionConfig
    exemplars: tuple[str, ...] = ()


def run_prepare(runtime: object, settings: PrepareSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Write `questions` without gold answers, `gold` for the audit only, `held_out` questions and `leaks` (overlaps).

    With `near_copies` write `copies` too: the questions to train on that are left out, and what they resemble.
    """
    source = question_source(settings.questions)
    rows, evaluation = source.training(settings.seed), source.held_out(settings.seed)
    rows = broken_questions(rows, settings.questions.broken, settings.seed)
    if settings.questions.near_copies:
        rows = _without_copies(rows, evaluation, settings.questions.near_copies, outputs["copies"])
    shown = [{"id": f"exemplar {i}", "question": text, "choices": None} for i, text in enumerate(settings.exemplars, start=1)]
    write_leaks([*rows, *shown], evaluation, outputs["leaks"])
    known = [(r["id"], accepted_answers(r)) for r in rows if r.get("answer") is not None or r.get("answers")]
    write_jsonl(outputs["gold"], ({"id": id, "answer": accepted[0], "answers": accepted} for id, accepted in known))
    write_jsonl(outputs["held_out"], evaluation)
    write_jsonl(outputs["questions"], ({k: v for k, v in r.items() if k not in GOLD} for r in rows))


def _without_copies(rows: list[Record], held_out: Sequence[Record], threshold: float, file: epath.Path) -> list[Record]:
    """Return the questions that resemble no earlier one and no held-out one, and write the others."""
    texts, others = ([with_choices(row["question"], row["choices"]) for row in of] for of in (rows, held_out))
    copies = near_copies(texts, threshold, "question", others)
    write_jsonl(
        file,
        (
            {
                "id": rows[copy.text]["id"],
                "question": rows[copy.text]["question"],
                "like": (held_out if copy.of_other else rows)[copy.of]["id"],
                "similarity": round(copy.similarity, 3),
                "reason": copy.reason,
            }
            for copy in copies
        ),
    )
    left_out = {copy.text for copy in copies}
    console.print(f"prepare: {len(left_out)} of {len(rows)} questions are left out as near copies; see {file}", markup=False)
    return [row for i, row in enumerate(rows) if i not in left_out]


def write_leaks(training: Sequence[Record], scored: Sequence[Record], file: epath.Path) -> None:
    """Write the scored questions that overlap with questions to train on, and print how many there are."""
    leaks = overlap(training, scored)
    if leaks:
        console.print(f"{describe(len(leaks.equal), len(leaks.shared), len(scored))}; see {file}")
    pairs = [("equal", pair) for pair in leaks.equal] + [("shared", pair) for pair in leaks.shared]
    write_jsonl(file, ({"id": id, "training_id": trained, "overlap": how} for how, (id, trained) in pairs))
