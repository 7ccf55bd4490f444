"""Natural language inference: ANLI (Nie et al. 2020, arXiv 1910.14599), MNLI (Williams et al. 2018, arXiv 1704.05426) and
RTE (Dagan et al. 2005, in GLUE, arXiv 1804.07461)."""

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row, tab_separated

THREE = {"entailment": "yes", "neutral": "unknown", "contradiction": "no"}
TWO = {"entailment": "yes", "not_entailment": "no"}
NUMBERED = {0: "yes", 1: "unknown", 2: "no"}


def ask(premise: str, hypothesis: str) -> str:
    """Return the question whether the hypothesis follows from the premise."""
    return f"Premise: {premise}\nHypothesis: {hypothesis}\nBased on the premise, is the hypothesis true?"


def read_anli(row: Row) -> Record:
    """Read a line of R1/test.jsonl and the like, or a TFDS row, which has the same fields with a class number as its label."""
    answer = row.one_of({"e": "yes", "n": "unknown", "c": "no", **NUMBERED}, "label")
    return {"id": row.text("uid"), "question": ask(row.text("context"), row.text("hypothesis")), "answer": answer}


def read_mnli(row: Row) -> Record | None:
    """Read a line of multinli_1.0_*.jsonl, or return None when the annotators did not agree (label "-")."""
    if row.get("gold_label") == "-":
        return None
    question = ask(row.text("sentence1"), row.text("sentence2"))
    return {"id": row.text("pairID"), "question": question, "answer": row.one_of(THREE, "gold_label")}


def read_mnli_tfds(row: Row) -> Record:
    """Read a TFDS row, whose label is a class number."""
    return {"question": ask(row.text("premise"), row.text("hypothesis")), "answer": row.one_of(NUMBERED, "label")}


def read_rte(row: Row) -> Record:
    """Read a line of train.tsv or dev.tsv, or a TFDS row, which has the same fields with a class number as its label."""
    answer = row.one_of({**TWO, 0: "yes", 1: "no"}, "label")
    return {"question": ask(row.text("sentence1"), row.text("sentence2")), "answer": answer}


def _anli(number: int) -> Dataset:
    return Dataset(
        f"anli_a{number}",
        "yes_no",
        "nli",
        domain="out" if number == 1 else "in",
        train="train",
        files={"train": f"R{number}/train.jsonl", "validation": f"R{number}/dev.jsonl", "test": f"R{number}/test.jsonl"},
        read=read_anli,
        tfds=f"anli/r{number}",
        read_tfds=read_anli,
    )


def _mnli(name: str, kind: str) -> Dataset:
    return Dataset(
        name,
        "yes_no",
        "nli",
        domain="out",
        test="validation",  # its test answers are not public
        files={"train": "multinli_1.0_train.jsonl", "validation": f"multinli_1.0_dev_{kind}.jsonl"},
        read=read_mnli,
        tfds="glue/mnli",
        tfds_splits={"validation": f"validation_{kind}"},
        read_tfds=read_mnli_tfds,
    )


ANLI_A1, ANLI_A2, ANLI_A3 = (_anli(number) for number in (1, 2, 3))
MNLI_M, MNLI_MM = _mnli("mnli_m", "matched"), _mnli("mnli_mm", "mismatched")
RTE = Dataset(
    "rte",
    "yes_no",
    "rte",
    domain="out",
    test="validation",  # its test answers are not public
    files={"train": "train.tsv", "validation": "dev.tsv"},
    read=read_rte,
    rows=tab_separated,
    labels=("yes", "no"),
    tfds="glue/rte",
    read_tfds=read_rte,
)
