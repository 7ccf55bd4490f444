"""DROP (Dua et al. 2019, arXiv 1903.00161): questions that count, compare or look up facts in a passage."""

from collections.abc import Iterator
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row, read_json


def rows(path: epath.Path) -> Iterator[Row]:
    """Yield the questions of drop_dataset_*.json, an object of passages by id, each with its `qa_pairs`."""
    passages = read_json(path)
    if not isinstance(passages, dict):
        raise UserError(f"{path}: a JSON {type(passages).__name__}, not an object of passages by id.")
    for id, passage in passages.items():
        where = f"{path} passage '{id}'"
        pairs = passage.get("qa_pairs") if isinstance(passage, dict) else None
        if not isinstance(pairs, list):
            raise UserError(f"{where}: no list `qa_pairs`.")
        for number, pair in enumerate(pairs, start=1):
            if not isinstance(pair, dict):
                raise UserError(f"{where} question {number}: a JSON {type(pair).__name__}, not an object {{...}}.")
            yield Row({"passage": passage.get("passage"), **pair}, f"{where} question {number}")


def stated(answer: Any) -> str:
    """Return an answer as text: a number, a date ("5 May 1862") or its spans joined by commas; "" when it has none of them."""
    if not isinstance(answer, dict):
        return ""
    if answer.get("number"):
        return str(answer["number"])
    date = answer.get("date")
    date = date if isinstance(date, dict) else {}
    words = " ".join(filter(None, (str(date.get(part) or "") for part in ("day", "month", "year"))))
    spans = answer.get("spans")
    return words or ", ".join(map(str, spans if isinstance(spans, list) else ()))


def ask(row: Row) -> str:
    """Return the passage and its question as one text."""
    return f"Passage: {row.text('passage')}\nQuestion: {row.text('question')}"


def read(row: Row) -> Record:
    """Read one question. Its `answers` are those of all annotators."""
    validated = row.fields.get("validated_answers") or []
    if not isinstance(validated, list):
        raise row.bad("validated_answers", f"is {validated!r:.60}, not a list")
    accepted = [stated(answer) for answer in (row.get("answer"), *validated)]
    accepted = list(dict.fromkeys(filter(None, accepted)))
    if not accepted:
        raise row.bad("answer", "has no number, no date and no span")
    return {"id": row.text("query_id"), "question": ask(row), "answer": accepted[0], "answers": accepted}


def read_tfds(row: Row) -> Record | None:
    """Read a TFDS row, or return None when it has no answer."""
    accepted = list(dict.fromkeys(filter(None, (row.get("answer"), *row.get("validated_answers")))))
    if not accepted:
        return None  # TFDS drops dates without a day
    return {"id": row.text("query_id"), "question": ask(row), "answer": accepted[0], "answers": accepted}


DROP = Dataset(
    "drop",
    "span",
    "drop",
    domain="in",
    train="train",
    test="validation",  # its test answers are not public
    files={"train": "drop_dataset_train.json", "validation": "drop_dataset_dev.json"},
    read=read,
    rows=rows,
    tfds="drop",
    tfds_splits={"validation": "dev"},
    read_tfds=read_tfds,
)
