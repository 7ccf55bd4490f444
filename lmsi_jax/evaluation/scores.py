"""Score voted predictions against gold answers."""

from collections.abc import Sequence

from lmsi_jax.answers import extract, spans
from lmsi_jax.answers.reader import AnswerReader, accepted_answers
from lmsi_jax.core.records import Record, fingerprint
from lmsi_jax.trust.steps import check_paths
from lmsi_jax.voting.majority import validity_weights, vote

PROMPTINGS = {  # in the paper's order; the last is the same paths as self-consistency, with another vote
    "standard": "Standard",
    "cot": "CoT, greedy",
    "self_consistency": "Self-consistency",
    "valid_first": "Valid first",
}


def score(
    questions: Sequence[Record], paths: Sequence[Sequence[Record]], reader: AnswerReader, checks: Sequence[str] | None = None
) -> list[Record]:
    """Return one row for each question: the voted prediction (with one path, its answer), and whether it is right.

    With `checks`, paths that pass these checks of their steps vote first. A row also counts the paths without an answer and
    the paths cut off at the token limit. Spans have an `f1` too.
    """
    by_id = {rows[0]["id"]: rows for rows in paths}
    scored = []
    for question in questions:
        rows, accepted = by_id[question["id"]], accepted_answers(question)
        read = reader.read(rows, question["choices"]).values
        valid = None
        if checks is not None:
            checked = check_paths(question["question"], [row["text"] for row in rows], read)
            valid = [each.is_valid(checks) for each in checked]
        outcome = vote(read, weights=None if valid is None else validity_weights(valid))
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
                **({} if valid is None else {"valid": valid, "checks": list(checks or ())}),
                **({"f1": spans.score(outcome.answer, accepted)[1]} if reader.answer_type == "span" else {}),
                **({"terms": question["terms"]} if "terms" in question else {}),
            }
        )
    return scored
