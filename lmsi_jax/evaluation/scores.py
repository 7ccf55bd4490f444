"""Score voted predictions against gold answers."""

from collections.abc import Sequence

from lmsi_jax.answers import extract, spans
from lmsi_jax.answers.reader import AnswerReader, accepted_answers
from lmsi_jax.core.records import Record, fingerprint
from lmsi_jax.voting.majority import vote

PROMPTINGS = {"standard": "Standard", "cot": "CoT, greedy", "self_consistency": "Self-consistency"}  # in the paper's order


def score(questions: Sequence[Record], paths: Sequence[Sequence[Record]], reader: AnswerReader) -> list[Record]:
    """Return one row for each question: the voted prediction (with one path, its answer), and whether it is right.

    A row also counts the paths without an answer and the paths cut off at the token limit. Spans have an `f1` too.
    """
    by_id = {rows[0]["id"]: rows for rows in paths}
    scored = []
    for question in questions:
        rows, accepted = by_id[question["id"]], accepted_answers(question)
        read = reader.read(rows, question["choices"]).values
        outcome = vote(read)
        scored.append(
            {
                "id": question["id"],
                "prediction": outcome.answer,
                "correct": reader.is_right(outcome.answer, accepted),
                "gold": extract.canonical(accepted[0], reader.answer_type),
                "confidence": outcome.confidence,
                "answers": read,
                "right": [reader.is_right(answer, accepted) for answer in read],
                "num_paths": len(rows),
                "unparsed": sum(a is None for a in read),
                "truncated": sum(row.get("finish") == "length" for row in rows),
                "num_tokens": sum(row["num_tokens"] for row in rows),
                "prompt_hash": rows[0]["prompt_hash"],
                "question_hash": fingerprint(question["question"], question["choices"]),
                "extractor": reader.extractor,
                **({"f1": spans.score(outcome.answer, accepted)[1]} if reader.answer_type == "span" else {}),
                **({"terms": question["terms"]} if "terms" in question else {}),
            }
        )
    return scored
