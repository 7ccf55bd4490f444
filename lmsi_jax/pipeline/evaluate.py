"""Held-out scores of a checkpoint: Standard prompting, CoT greedy and self-consistency (paper, table 3)."""

import functools
from collections.abc import Sequence
from typing import Any

from etils import epath

from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, fingerprint, write_jsonl
from lmsi_jax.evaluation.statistics import mean_estimate, share_estimate
from lmsi_jax.pipeline.decode import Job, decode_to_file, greedy, sampling
from lmsi_jax.pipeline.session import Session
from lmsi_jax.pipeline.steps import requests
from lmsi_jax.pipeline.vote import paths_by_question
from lmsi_jax.sharding import processes
from lmsi_jax.tasks import answers, registry, spans
from lmsi_jax.tasks.reading import accepted_answers, is_right, read_answers
from lmsi_jax.tasks.registry import Task
from lmsi_jax.voting.majority import vote


def evaluate(
    session: Session,
    number: int,
    checkpoint: str,
    held_out: epath.Path,
    scores: dict[str, epath.Path],
    scratch: epath.Path,
    metrics: epath.Path,
    name: str = "",
) -> None:
    """Score checkpoint `number` (0 = base, r = after round r) with each prompting of `scores`, a file each.

    `name` is what the scores call it, if it belongs to no run.
    """
    config, prompts, temperature = session.config, session.prompts, session.temperature(number)
    manners = {
        "standard": (prompts.direct_examples, greedy(session, config.evaluate.standard_tokens)),
        "cot": (prompts.cot_examples, greedy(session, config.sample.max_tokens)),
        "self_consistency": (prompts.cot_examples, sampling(session, temperature)),
    }
    questions = registry.load_questions(held_out)
    registry.check_gold(questions, session.task.answer_type, str(held_out))
    for prompting, file in scores.items():
        few_shot, decoding = manners[prompting]
        paths = scratch / f"{prompting}.jsonl"
        title = f"evaluate {number} {prompting.replace('_', '-')}"
        names = ("evaluate", number, prompting)
        job = Job(few_shot, requests(held_out, session), decoding, names, scratch, paths, title, metrics)
        decode_to_file(session, checkpoint, job)
        manner = {"prompting": prompting, "checkpoint": name or number, "temperature": decoding.temperature}
        processes.by_first(functools.partial(_write_scores, session.task, questions, paths, file, manner, title))


def _write_scores(
    task: Task, questions: Sequence[Record], paths: epath.Path, file: epath.Path, manner: dict[str, Any], title: str
) -> None:
    rows = score(questions, list(paths_by_question(paths)), task)
    write_jsonl(file, ({**row, "task": task.name, **manner} for row in rows))
    share = share_estimate(sum(r["correct"] for r in rows), len(rows))
    f1 = f", F1 {mean_estimate([r['f1'] for r in rows]).value:.1%}" if "f1" in rows[0] else ""
    console.print(f"{title}: {share.value:.1%} [{share.low:.1%}, {share.high:.1%}] of {len(rows)}{f1}")


def score(questions: Sequence[Record], paths: Sequence[Sequence[Record]], task: Task) -> list[Record]:
    """One row a question: the voted prediction (of one path: its own answer), and whether it is right.

    Paths without an answer and paths cut at their longest are counted beside it. Spans have an `f1` too.
    """
    by_id = {rows[0]["id"]: rows for rows in paths}
    scored = []
    for question in questions:
        rows, accepted = by_id[question["id"]], accepted_answers(question)
        read = read_answers(rows, task, question["choices"]).answers
        outcome = vote(read)
        right = [is_right(answer, accepted, task.answer_type) for answer in read]
        scored.append(
            {
                "id": question["id"],
                "prediction": outcome.answer,
                "correct": is_right(outcome.answer, accepted, task.answer_type),
                "gold": answers.canonical(accepted[0], task.answer_type),
                "confidence": outcome.confidence,
                "answers": read,
                "right": right,
                "num_paths": len(rows),
                "unparsed": sum(a is None for a in read),
                "truncated": sum(row.get("finish") == "length" for row in rows),
                "num_tokens": sum(row["num_tokens"] for row in rows),
                "prompt_hash": rows[0]["prompt_hash"],
                "question_hash": fingerprint(question["question"], question["choices"]),
                "extractor": answers.VERSION,
                **({"f1": spans.score(outcome.answer, accepted)[1]} if task.answer_type == "span" else {}),
                **({"terms": question["terms"]} if "terms" in question else {}),
            }
        )
    return scored
