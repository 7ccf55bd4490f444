"""The questions and paths that are embedded in a report, as JSON data for the page's script."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmsi_jax.analysis.rounds import REASONS, Gold, Round
from lmsi_jax.analysis.validity import GENERAL, Steps
from lmsi_jax.answers.reader import answers_by_path
from lmsi_jax.core.records import Record, finite, read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder

MOST_QUESTIONS = 300  # per round
FEWEST_QUESTIONS = 20
MOST_BYTES = 6_000_000  # per round, roughly; long paths mean fewer questions


def choose(votes: Sequence[Record], limit: int) -> list[Record]:
    """Return at most `limit` votes, evenly spaced in order of vote share, from the lowest to the highest.

    Example: five votes with shares .1 .2 .3 .4 .5 and limit 3 give .1, .3 and .5.
    """
    ordered = sorted(votes, key=lambda v: (v["confidence"], v["id"]))
    if len(ordered) <= limit:
        return ordered
    step = (len(ordered) - 1) / max(limit - 1, 1)
    return [ordered[round(i * step)] for i in range(limit)]


def round_payload(folder: RunFolder, round: Round, steps: Steps, questions: dict[str, Record], gold: Gold) -> dict[str, Any]:
    """Return the data of one round for the page: the chosen questions with all of their paths."""
    file = folder.paths(round.group)
    size = file.stat().length / len(round.votes) if file.exists() else 1.0
    chosen = choose(round.votes, max(FEWEST_QUESTIONS, min(MOST_QUESTIONS, int(MOST_BYTES / max(size, 1.0)))))
    wanted = {v["id"] for v in chosen}
    paths: dict[str, list[Record]] = {id: [] for id in wanted}
    for row in read_jsonl(file) if file.exists() else ():
        if row["id"] in wanted:
            paths[row["id"]].append(row)
    trained: dict[str, list[int]] = {id: [] for id in wanted}
    for id, path in round.trained or ():
        if id in wanted:
            trained[id].append(path)
    return {
        "round": round.name,
        "total": len(round.votes),
        "questions": [
            {
                "id": v["id"],
                "question": questions.get(v["id"], {}).get("question", ""),
                "choices": questions.get(v["id"], {}).get("choices"),
                "gold": gold.shown(v["id"]),
                "answer": v["answer"],
                "right": gold.right(v["id"], v["answer"]) if v["id"] in gold else None,
                "confidence": v["confidence"],
                # A list keeps its order; a JavaScript object with number-like keys does not.
                "counts": [[a, n, v["id"] in gold and gold.right(v["id"], a)] for a, n in v["counts"].items()],
                "num_paths": v["num_paths"],
                "trained": sorted(trained[v["id"]]),
                "valid": _valid(steps.get(v["id"], {})),
                "paths": _paths(v, paths[v["id"]], steps.get(v["id"], {})),
            }
            for v in chosen
        ],
    }


def _valid(steps: Mapping[int, Record]) -> int | None:
    """Return how many paths of a question pass the general checks, or None where steps were not checked."""
    return sum(all(each["check"] not in GENERAL for each in row["failures"]) for row in steps.values()) if steps else None


def _paths(vote: Record, rows: Sequence[Record], steps: Mapping[int, Record]) -> list[dict[str, Any]]:
    """Return each path with its outcome: it agrees with the vote, has another answer, or abstains for a reason."""
    kept, reasons = set(vote["kept"]), {a["path"]: a["reason"] for a in vote["abstained"]}
    answers, shown = answers_by_path(vote), []
    for row in sorted(rows, key=lambda row: row["path"]):
        number = row["path"]
        abstains = number in reasons
        shown.append(
            {
                "path": number,
                "text": row["text"],
                "marks": marks(row["text"], steps[number]) if number in steps else [],
                "failed": sorted({failure["check"] for failure in steps[number]["failures"]}) if number in steps else [],
                "outcome": "agrees" if number in kept else "abstains" if abstains else "other",
                "answer": REASONS.get(reasons[number], reasons[number]) if abstains else answers.get(number),
                "tokens": finite(row.get("num_tokens")),
                "logprob": finite(row.get("logprob")),
                "cut": row.get("finish") == "length",
            }
        )
    return shown


def marks(text: str, steps: Record) -> list[list[Any]]:
    """Return [start, end, verdict, right value] of the statements of a path that do not overlap, in UTF-16 units."""
    chosen: list[Record] = []
    for each in (each for step in steps["steps"] for each in step["statements"]):
        if not chosen or each["start"] >= chosen[-1]["end"]:
            chosen.append(each)
    at = utf16_positions(text, [each[name] for each in chosen for name in ("start", "end")])
    return [[at[each["start"]], at[each["end"]], each["verdict"], each.get("value")] for each in chosen]


def utf16_positions(text: str, positions: Iterable[int]) -> dict[int, int]:
    """Return positions in a text, by those that Python counts, as JavaScript counts them: in UTF-16 units."""
    result, before, units = {}, 0, 0
    for position in sorted(set(positions)):
        units += len(text[before:position].encode("utf-16-le", "surrogatepass")) // 2
        before, result[position] = position, units
    return result


def read_questions(folder: RunFolder) -> dict[str, Record]:
    """Return the training questions by id, or none when they are not stored yet."""
    return {r["id"]: r for r in read_jsonl(folder.questions)} if folder.questions.exists() else {}
