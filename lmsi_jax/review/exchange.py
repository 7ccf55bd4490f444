"""Reviews in the formats of other annotation tools: Label Studio, Argilla, Prodigy and Inspect.

An export has the question, the voted answer and some paths of each item, and the reviews so far. It also has our own rows, so
that what a tool cannot express survives the way back. On import a verdict that was given or changed in the tool becomes a new
row, and all other rows come back as they were.
"""

import contextlib
import datetime
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lmsi_jax.core.errors import UserError, unknown
from lmsi_jax.core.records import Record, dumps, fingerprint
from lmsi_jax.review.items import Item
from lmsi_jax.tasks.prompts import with_choices
from lmsi_jax.trust.reviews import VERDICTS, Reviews, settled

ROWS = "lmsi_reviews"  # the field with our own rows
NAMESPACE = uuid.UUID("6e1f5c3a-52a4-4d0c-9d55-1c8f0e7a9b21")  # of the user ids that Argilla needs
LABELING_CONFIG = """<View>
  <Text name="question" value="$question"/>
  <Header value="The vote"/>
  <Text name="answer" value="$answer"/>
  <Text name="paths" value="$paths"/>
  <Choices name="verdict" toName="question" choice="single" required="true">
    <Choice value="right"/><Choice value="wrong"/><Choice value="unclear"/>
  </Choices>
</View>
"""


class Verdict(NamedTuple):
    """A verdict on a label as a tool's file has it, before `_new_row` checks it. Unknown values are None."""

    id: Any
    answer: Any
    reviewer: Any
    verdict: Any
    time: Any = None
    seconds: Any = None


def _label_rows(rows: Sequence[Record]) -> dict[str, Record]:
    """Return the last row of each reviewer on the label, by reviewer."""
    return {row["reviewer"]: row for row in rows if row.get("path") is None}


def _text(item: Item) -> str:
    return "\n\n".join(f"Path {number}: {path['text'].strip()}" for number, path in enumerate(item.paths, start=1))


# Each tool: a function from items and the rows of each to the text of a file, and one from parsed records to verdicts.


def _to_label_studio(items: Sequence[Item], rows: Mapping[str, Sequence[Record]]) -> str:
    tasks = []
    for item in items:
        annotations = [
            {
                "completed_by": {"email": reviewer},
                "created_at": row.get("time"),
                "lead_time": row.get("seconds"),
                "result": [
                    {"from_name": "verdict", "to_name": "question", "type": "choices", "value": {"choices": [row["verdict"]]}}
                ],
            }
            for reviewer, row in _label_rows(rows[item.id]).items()
        ]
        data = {
            "id": item.id,
            "question": with_choices(item.question, item.choices),
            "answer": item.answer,
            "paths": _text(item),
            ROWS: list(rows[item.id]),
        }
        tasks.append({"data": data, "annotations": annotations})
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def _from_label_studio(record: Record) -> Iterator[Verdict]:
    data = record["data"]
    for annotation in record.get("annotations") or ():
        by = annotation.get("completed_by")
        reviewer = str(by.get("email") or by.get("id")) if isinstance(by, dict) else str(by)
        for result in annotation.get("result") or ():
            if result.get("from_name") == "verdict" and not annotation.get("was_cancelled"):
                (verdict,) = result["value"]["choices"]
                time, seconds = annotation.get("created_at"), annotation.get("lead_time")
                yield Verdict(data["id"], data["answer"], reviewer, verdict, time, seconds)


def _to_argilla(items: Sequence[Item], rows: Mapping[str, Sequence[Record]]) -> str:
    records = [
        {
            "id": item.id,
            "fields": {"question": with_choices(item.question, item.choices), "answer": item.answer, "paths": _text(item)},
            "metadata": {ROWS: dumps(list(rows[item.id]))},
            "suggestions": {},
            "responses": {
                "verdict": [
                    {"value": row["verdict"], "user_id": str(uuid.uuid5(NAMESPACE, reviewer)), "status": "submitted"}
                    for reviewer, row in _label_rows(rows[item.id]).items()
                ]
            },
            "vectors": {},
            "status": "pending",
        }
        for item in items
    ]
    return json.dumps(records, ensure_ascii=False, indent=1) + "\n"


def _from_argilla(record: Record) -> Iterator[Verdict]:
    names = {str(uuid.uuid5(NAMESPACE, row["reviewer"])): row["reviewer"] for row in _own_rows(record)}
    for response in (record.get("responses") or {}).get("verdict") or ():
        if response.get("status", "submitted") == "submitted":
            user = str(response.get("user_id"))
            yield Verdict(record["id"], record["fields"]["answer"], names.get(user, user), response["value"])


PRODIGY = {"right": "accept", "wrong": "reject", "unclear": "ignore"}


def _to_prodigy(items: Sequence[Item], rows: Mapping[str, Sequence[Record]]) -> str:
    lines = []
    for item in items:
        task = {"text": f"{with_choices(item.question, item.choices)}\n\nThe vote: {item.answer}\n\n{_text(item)}"}
        meta = {"id": item.id, "answer": item.answer, ROWS: list(rows[item.id])}
        done = [
            {"answer": PRODIGY[row["verdict"]], "_annotator_id": reviewer, **_timestamp(row)}
            for reviewer, row in _label_rows(rows[item.id]).items()
        ]
        lines += [dumps({**task, "meta": meta, **each}) + "\n" for each in done or [{}]]
    return "".join(lines)


def _timestamp(row: Record) -> dict[str, int]:
    return {"_timestamp": int(datetime.datetime.fromisoformat(row["time"]).timestamp())} if row.get("time") else {}


def _from_prodigy(record: Record) -> Iterator[Verdict]:
    if record.get("answer") in PRODIGY.values():
        verdict = next(verdict for verdict, answer in PRODIGY.items() if answer == record["answer"])
        reviewer = str(record.get("_annotator_id") or record.get("_session_id") or "prodigy")
        at, meta = record.get("_timestamp"), record["meta"]
        time = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds") if at else None
        yield Verdict(meta["id"], meta["answer"], reviewer, verdict, time)


INSPECT = {"right": "C", "wrong": "I", "unclear": "N"}  # its values for correct, incorrect and no answer


def _to_inspect(items: Sequence[Item], rows: Mapping[str, Sequence[Record]]) -> str:
    lines = []
    for item in items:
        given = _label_rows(rows[item.id])
        if given:  # one record a sample, as its scorer `precomputed_scores` wants
            verdict = settled(row["verdict"] for row in given.values()) or "unclear"
            explanation = "; ".join(f"{reviewer}: {row['verdict']}" for reviewer, row in given.items())
            score = {"id": item.id, "value": INSPECT[verdict], "answer": item.answer, "explanation": explanation}
            lines.append(dumps({**score, "metadata": {ROWS: list(rows[item.id]), "value": INSPECT[verdict]}}) + "\n")
    return "".join(lines)


def _from_inspect(record: Record) -> Iterator[Verdict]:
    metadata = record.get("metadata") or {}
    if record["value"] != metadata.get("value"):  # edited, or made by Inspect
        verdict = next((verdict for verdict, value in INSPECT.items() if value == record["value"]), record["value"])
        yield Verdict(str(record["id"]), str(record.get("answer")), str(metadata.get("reviewer", "inspect")), verdict)


class Tool(NamedTuple):
    """How reviews are written for a tool, and read from it."""

    write: Callable[[Sequence[Item], Mapping[str, Sequence[Record]]], str]
    read: Callable[[Record], Iterator[Verdict]]


TOOLS = {
    "label_studio": Tool(_to_label_studio, _from_label_studio),
    "argilla": Tool(_to_argilla, _from_argilla),
    "prodigy": Tool(_to_prodigy, _from_prodigy),
    "inspect": Tool(_to_inspect, _from_inspect),
}


def tool_of(name: str) -> Tool:
    """Return a tool by its name. Raises UserError for an unknown one."""
    if name not in TOOLS:
        raise unknown("tool", name, TOOLS)
    return TOOLS[name]


def export_reviews(tool: str, items: Sequence[Item], rows: Iterable[Record]) -> str:
    """Return a file for a tool, with all items and the reviews of them."""
    by_id: dict[str, list[Record]] = {item.id: [] for item in items}
    for row in rows:
        if row["id"] in by_id:
            by_id[row["id"]].append(row)
    return tool_of(tool).write(items, by_id)


def import_reviews(tool: str, text: str, file: str, known: Sequence[Record] = ()) -> list[Record]:
    """Return the rows that a tool's file adds to the `known` rows of reviews.jsonl.

    They are our own rows that are not known, and a new row for each verdict of the tool that is not the last one of its
    reviewer. Raises UserError for a file that is not the tool's.
    """
    rows = {_name(row): row for row in known}
    read, before = tool_of(tool).read, len(rows)
    records = _records(text, file)
    for number, record in enumerate(records, start=1):
        with _explained(tool, file, number):
            if not isinstance(record, dict):
                raise TypeError(f"a JSON object is expected, not {record!r:.60}")
            rows |= {_name(row): row for row in _own_rows(record) if _name(row) not in rows}
    last = {(row["id"], row.get("answer"), row["reviewer"]): row["verdict"] for row in rows.values() if row.get("path") is None}
    for number, record in enumerate(records, start=1):
        with _explained(tool, file, number):
            for each in read(record):
                if last.get((each.id, each.answer, each.reviewer)) != each.verdict:
                    row = _new_row(tool, each, len(rows))
                    rows[_name(row)] = row
    return list(rows.values())[before:]


def _name(row: Record) -> tuple[Any, ...]:
    """Return what identifies a row: a submission has a key, and one row for the label and one for each path."""
    return (row.get("key"), row["id"], row["reviewer"], row.get("path"))


@contextlib.contextmanager
def _explained(tool: str, file: str, number: int) -> Iterator[None]:
    """Turn the errors of a record that is not the tool's into a UserError that names it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}, record {number}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file}, record {number} is not of {tool}'s format with the fields of `lmsi reviews --tool={tool} --output` "
            f"({type(error).__name__}: {error})."
        ) from error


def _records(text: str, file: str) -> list[Any]:
    try:
        if text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            records = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is neither a JSON list nor JSON Lines ({error}).") from error
    return records


def _own_rows(record: Record) -> list[Record]:
    """Return our own rows from where each tool keeps them."""
    for holder in (record.get("data"), record.get("meta"), record.get("metadata")):
        if isinstance(holder, dict) and ROWS in holder:
            rows = json.loads(holder[ROWS]) if isinstance(holder[ROWS], str) else holder[ROWS]
            if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("key"), str) for row in rows):
                raise TypeError(f"`{ROWS}` must be a list of reviews, not {rows!r:.60}")
            Reviews.of(rows, f"`{ROWS}`")
            return rows
    return []


def _new_row(tool: str, each: Verdict, number: int) -> Record:
    if each.verdict not in VERDICTS or not all(isinstance(text, str) for text in (each.id, each.answer, each.reviewer)):
        raise UserError(
            f"{each!r:.200} is no verdict; one of {', '.join(VERDICTS)} is expected, with `id`, `answer` and the reviewer."
        )
    time = each.time or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "id": each.id,
        "path": None,
        "answer": each.answer,
        "verdict": each.verdict,
        "first_wrong_step": None,
        "reviewer": each.reviewer,
        "time": time,
        "seconds": each.seconds,
        "seen": "",
        "key": f"{tool} {fingerprint(each.id, each.answer, each.reviewer, each.verdict, each.time, number)}",
    }
