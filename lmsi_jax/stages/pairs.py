"""Makes preference pairs of voted paths: a path of the winning answer against one of an answer with fewer votes (ScPO)."""

import dataclasses
import random
from collections.abc import Sequence

from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.reader import answers_by_path
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, write_jsonl
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.stages.path_files import paths_by_question, read_votes
from lmsi_jax.tasks.questions import load_questions


@dataclasses.dataclass(frozen=True)
class PairsSettings:
    """How many pairs a question gives, and the least share of the votes that its winner needs."""

    seed: int
    prompts: Prompts
    pairs: int
    min_confidence: float


def run_pairs(runtime: object, settings: PairsSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Write `pairs` of `paths` on `questions` by their `votes`: `prompt`, `chosen`, `rejected` as TRL names them, and `weight`.

    The weight is the margin of the two answers: (votes of the chosen one - votes of the rejected one) / paths (Prasad et al.
    2024, arXiv 2411.04109). Raises UserError when no question has a pair.
    """
    questions, votes = {row["id"]: row for row in load_questions(inputs["questions"])}, read_votes(inputs["votes"])
    rows: list[Record] = []
    for paths in paths_by_question(inputs["paths"]):
        id = paths[0]["id"]
        if id not in questions or id not in votes:
            raise UserError(f"Question '{id}' of {inputs['paths']} is missing in {inputs['questions']} or {inputs['votes']}.")
        rows += _pairs(settings, questions[id], paths, votes[id])
    if not rows:
        raise UserError(
            f"No question has two answers, of which the winning one has a vote share of {settings.min_confidence} or more, so "
            f"that there is no pair to learn from; sample more paths, or lower --config.select.min_confidence."
        )
    write_jsonl(outputs["pairs"], rows)
    console.print(f"pairs: {len(rows):,} of {len({row['id'] for row in rows}):,} questions")


def _pairs(settings: PairsSettings, question: Record, paths: Sequence[Record], vote: Record) -> list[Record]:
    """Return pairs of one question: winners in random order, each against a loser; those with the fewest votes come first."""
    if vote["answer"] is None or vote["confidence"] < settings.min_confidence:
        return []
    answers, texts = answers_by_path(vote), {row["path"]: row["text"] for row in paths}
    winners = [path for path in vote["kept"] if path in texts]
    losers = [path for path in texts if answers.get(path) != vote["answer"]]
    draw = random.Random(f"pairs {settings.seed} {question['id']}")
    draw.shuffle(winners)
    draw.shuffle(losers)
    counts = vote["counts"]
    losers.sort(key=lambda path: counts.get(answers.get(path), 0))
    prompt = settings.prompts.render("few_shot_cot", question["question"], question["choices"])
    target = settings.prompts.target
    return [
        {
            "id": question["id"],
            "paths": [winner, loser],
            "prompt": prompt,
            "chosen": target(truncate_at_next_turn(texts[winner])),
            "rejected": target(truncate_at_next_turn(texts[loser])),
            "weight": (counts[vote["answer"]] - counts.get(answers.get(loser), 0)) / vote["num_paths"],
        }
        for winner, loser in list(zip(winners, losers, strict=False))[: settings.pairs]
    ]
