"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): grade-school word problems."""

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row


def read(row: Row) -> Record:
    """Read a line of train.jsonl or test.jsonl, whose answer follows "####"."""
    solution, marker, answer = row.text("answer").rpartition("####")
    if not marker or not answer.strip():
        raise row.bad("answer", f"has no '####' in front of its result: {solution or answer!r:.60}")
    return {"question": row.text("question"), "answer": answer.strip().replace(",", "")}


GSM8K = Dataset(
    "gsm8k",
    "number",
    "gsm8k",
    domain="in",
    train="train",
    files={"train": "train.jsonl", "test": "test.jsonl"},
    read=read,
)
