"""SVAMP (Patel et al. 2021, arXiv 2103.07191): word problems with variations that make keywords misleading."""

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row, json_list


def read(row: Row) -> Record:
    """Read an object of SVAMP.json, whose question is in two parts, `Body` and `Question`."""
    body, question = row.text("Body"), row.text("Question")
    joined = f"{body} {question}" if body[-1] in ".,;?!" else f"{body}. {question}"
    return {"id": row.text("ID"), "question": joined, "answer": row.number("Answer")}


SVAMP = Dataset(
    "svamp",
    "number",
    "gsm8k",
    domain="out",
    files={"test": "SVAMP.json"},
    read=read,
    rows=json_list,
)
