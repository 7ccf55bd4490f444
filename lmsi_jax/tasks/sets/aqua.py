"""AQuA-RAT (Ling et al. 2017, arXiv 1705.04146): algebra with five options."""

import re

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row


def read(row: Row) -> Record:
    """Read a line of train.json, dev.json or test.json, whose options are written "A)21"."""
    options = row.get("options")
    if not isinstance(options, list):
        raise row.bad("options", f"is {options!r:.60}, not a list")
    parts = [re.fullmatch(r"\(?([A-E])\s?\)(.*)", str(option).strip(), re.DOTALL) for option in options]
    if None in parts:
        raise row.bad("options", f"has {options[parts.index(None)]!r:.60}, which does not begin with its letter, as in 'A)21'")
    letters = [part[1] for part in parts if part]
    options = row.choice([part[2] for part in parts if part], row.text("correct"), letters, "options")
    return {"question": row.text("question"), **options}


AQUA = Dataset(
    "aqua",
    "choice",
    "aqua",
    domain="out",
    files={"train": "train.json", "validation": "dev.json", "test": "test.json"},
    read=read,
)
