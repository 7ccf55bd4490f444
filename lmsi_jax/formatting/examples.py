"""The four formats of section 3.2, table 2: each kept path becomes up to four training rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import finite
from lmsi_jax.formatting.config import FORMATS
from lmsi_jax.formatting.packing import Piece
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.tasks import prompts
from lmsi_jax.tokenizers import Tokenizer


@dataclass(frozen=True)
class Solution:
    """A path to train on: its index, its text, its answer, and the question that its rows ask where it was changed."""

    path: int
    text: str
    answer: str
    question: str = ""


def examples(
    id: str,
    question: str,
    choices: Sequence[str] | None,
    solutions: Sequence[Solution],
    answer_type: str,
    of_task: Prompts,
    formats: Sequence[str],
    *,
    distinct_direct: bool = False,
) -> list[dict]:
    """Return the training rows of one question: one row with `prompt` and `target` for each solution and format.

    A chain-of-thought target is the path as it was sampled. A direct target is only the concluding sentence, which is the
    same for all paths of one vote. With `distinct_direct`, equal direct rows are returned once per question.
    """
    rows: list[dict] = []
    seen: set[tuple[str, str]] = set()
    for solution in solutions:
        for format in formats:
            direct = not FORMATS[format].reasoning
            target = of_task.target(prompts.conclusion(solution.answer, answer_type) if direct else solution.text)
            prompt = of_task.render(format, solution.question or question, choices)
            if direct and distinct_direct and (prompt, target) in seen:
                continue
            seen.add((prompt, target))
            rows.append({"id": id, "path": solution.path, "format": format, "prompt": prompt, "target": target})
    return rows


def tokenize(rows: Sequence[dict], tokenizer: Tokenizer, weighting: str = "token") -> list[Piece]:
    """Return the token ids of training rows, from beginning- to end-of-sequence. Only the targets have loss.

    `weighting` is what has equal weight in the loss: each "token" of a target, each "row" whatever its length, or each
    "question" whatever its number of rows. The paper does not specify it. "token" is the usual fine-tuning loss, in which
    long reasoning has the most weight. The `weight` of a row, if it has one, multiplies its weight in the loss. Its
    `difficulty` is that of its piece.

    Raises UserError when there are no rows, when a field of a row is not text, or when a target is empty.
    """
    _check_rows(rows)
    end = [tokenizer.eos] if tokenizer.eos >= 0 else []
    questions = [row.get("id", i) for i, row in enumerate(rows)]  # each row without `id` is its own question
    siblings = Counter(questions)
    pieces = []
    for question, row in zip(questions, rows, strict=True):
        prompt = tokenizer.start(row["prompt"])
        target = [*tokenizer.encode_completion(row["target"], prompt), *end]
        if not target:
            raise UserError(f"The target of {row['prompt'][-60:]!r} is empty, so there is nothing to learn; leave the row out.")
        total = {"token": len(target), "row": 1.0, "question": 1 / siblings[question]}[weighting]
        group = f"{row.get('format', '')} {row.get('template', '')}"  # of rows that may begin with the same exemplars
        weight = total * row.get("weight", 1.0) / len(target)
        pieces.append(Piece([*prompt, *target], len(prompt), group, weight, row.get("difficulty", 0.0)))
    return pieces


def _check_rows(rows: Sequence[dict]) -> None:
    if not rows:
        raise UserError("There are no training rows; a file of them has one JSON object per line, with `prompt` and `target`.")
    for number, row in enumerate(rows, start=1):
        for field in ("prompt", "target", *({"id", "format"} & row.keys())):
            if not isinstance(row.get(field), str):
                raise UserError(
                    f"Training row {number} has the `{field}` {row.get(field)!r:.60}. `prompt` and `target` must be text; so "
                    f"must `id` and `format` where a row has them."
                )
        if finite(row.get("difficulty", 0.0)) is None:
            raise UserError(f"Training row {number} has the `difficulty` {row['difficulty']!r:.60}; it must be a number.")
        weight = finite(row.get("weight", 1.0))
        if weight is None or weight <= 0:
            raise UserError(f"Training row {number} has the `weight` {row['weight']!r:.60}; it must be a positive number.")
