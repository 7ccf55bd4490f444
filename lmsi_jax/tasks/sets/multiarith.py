"""MultiArith (Roy and Roth 2015, arXiv 1608.01413): multi-step word problems."""

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row, json_list


def read(row: Row) -> Record:
    """Read an object of MultiArith.json."""
    solutions = row.get("lSolutions")
    if not isinstance(solutions, list) or len(solutions) != 1:
        raise row.bad("lSolutions", f"is {solutions!r:.60}, not a list of one number")
    answer = Row({"lSolutions": solutions[0]}, row.where).number("lSolutions")
    return {"question": row.text("sQuestion"), "answer": answer}


MULTIARITH = Dataset(
    "multiarith",
    "number",
    "gsm8k",
    domain="out",
    files={"test": "MultiArith.json"},
    read=read,
    rows=json_list,
)
