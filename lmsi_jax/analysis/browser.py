"""The questions and paths that a report carries with it, as JSON-able data for the page's script."""

import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from lmsi_jax.analysis.rounds import REASONS, Round
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.tasks.answers import Answer, extract

MOST_QUESTIONS = 300  # of a round
FEWEST_QUESTIONS = 20
MOST_BYTES = 6_000_000  # of a round, roughly: long paths mean fewer questions


def choose(votes: Sequence[Record], limit: int) -> list[Record]:
    """At most `limit` votes, evenly spaced in order of vote share, so that every share is there; the ends always are.

    Example: five votes with shares .1 .2 .3 .4 .5 and limit 3 give .1, .3 and .5.
    """
    ordered = sorted(votes, key=lambda v: (v["confidence"], v["id"]))
    if len(ordered) <= limit:
        return ordered
    step = (len(ordered) - 1) / max(limit - 1, 1)
    return [ordered[round(i * step)] for i in range(limit)]


def round_payload(round: Round, questions: dict[str, Record], gold: dict[str, str], answer_type: str) -> dict[str, Any]:
    """One round for the page: the chosen questions with all of their paths."""
    file = round.folder / "paths.jsonl"
    size = file.stat().length / len(round.votes) if file.exists() else 1.0
    chosen = choose(round.votes, max(FEWEST_QUESTIONS, min(MOST_QUESTIONS, int(MOST_BYTES / max(size, 1.0)))))
    wanted = {v["id"] for v in chosen}
    paths: dict[str, list[Record]] = {id: [] for id in wanted}
    for row in read_jsonl(file) if file.exists() else ():
        if row["id"] in wanted:
            paths[row["id"]].append(row)
    trained: dict[str, list[int]] = {id: [] for id in wanted}
    for id, path in round.trained or {}:
        if id in wanted:
            trained[id].append(path)
    return {
        "round": round.number,
        "total": len(round.votes),
        "questions": [
            {
                "id": v["id"],
                "question": questions.get(v["id"], {}).get("question", ""),
                "choices": questions.get(v["id"], {}).get("choices"),
                "gold": gold.get(v["id"]),
                "answer": v["answer"],
                "confidence": v["confidence"],
                "counts": list(v["counts"].items()),  # a list keeps its order; an object with number-like keys does not
                "num_paths": v["num_paths"],
                "trained": sorted(trained[v["id"]]),
                "paths": _paths(v, paths[v["id"]], answer_type),
            }
            for v in chosen
        ],
    }


def _paths(vote: Record, rows: Sequence[Record], answer_type: str) -> list[dict[str, Any]]:
    """Each path with what became of it: it agrees with the vote, says something else, or abstains for a reason."""
    kept, reasons = set(vote["kept"]), {a["path"]: a["reason"] for a in vote["abstained"]}
    found = []
    for row in sorted(rows, key=lambda row: row["path"]):
        number = row["path"]
        if number in kept:
            outcome, said = "agrees", vote["answer"]
        elif number in reasons:
            outcome, said = "abstains", REASONS.get(reasons[number], reasons[number])
        else:
            answer = extract(row["text"], answer_type, row.get("finish", "stop"))
            outcome, said = "other", answer.value if isinstance(answer, Answer) else None
        found.append(
            {
                "path": number,
                "text": row["text"],
                "outcome": outcome,
                "said": said,
                "tokens": row.get("num_tokens"),
                "logprob": _finite(row.get("logprob")),
                "cut": row.get("finish") == "length",
            }
        )
    return found


def _finite(value: float | None) -> float | None:
    """JSON has no infinity and no NaN, and a browser rejects what Python writes for them."""
    return value if value is not None and math.isfinite(value) else None


def read_questions(workdir: epath.Path) -> dict[str, Record]:
    """The training questions by id."""
    file = workdir / "questions.jsonl"
    return {r["id"]: r for r in read_jsonl(file)} if file.exists() else {}
