"""OpenBookQA (Mihaylov et al. 2018, arXiv 1809.02789): elementary science questions, asked without the book."""

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import LETTERS, Dataset, Row
from lmsi_jax.tasks.sets.arc import read_choices


def read_tfds(row: Row) -> Record:
    """Read a TFDS row, which has no id and a class number as its answer (0 is A)."""
    choices = [row.text("question", f"choice_{letter}") for letter in "ABCD"]
    options = row.choice(choices, LETTERS[int(row.get("answerKey"))], list("ABCD"), "question")
    return {"question": row.text("question", "stem"), **options}


OPENBOOKQA = Dataset(
    "openbookqa",
    "choice",
    "openbookqa",
    domain="in",
    train="train",
    files={"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"},
    read=read_choices,
    tfds="openbookqa",
    read_tfds=read_tfds,
)
