"""StrategyQA (Geva et al. 2021, arXiv 2101.02235): yes/no questions whose reasoning steps are implicit."""

from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row, json_list


def read(row: Row) -> Record:
    """Read an object of strategyqa_train.json, or of BIG-bench's task.json, whose questions the paper scores."""
    if "target_scores" in row.fields:
        scores = row.get("target_scores")
        right = [name for name, score in scores.items() if score] if isinstance(scores, dict) else []
        if len(right) != 1:
            raise row.bad("target_scores", f"is {scores!r:.60}, which does not name one right answer")
        answer = Row({"target_scores": right[0]}, row.where).one_of({"Yes": "yes", "No": "no"}, "target_scores")
        return {"question": row.text("input"), "answer": answer}
    answer = row.one_of({True: "yes", False: "no"}, "answer")
    return {"id": row.text("qid"), "question": row.text("question"), "answer": answer}


STRATEGYQA = Dataset(
    "strategyqa",
    "yes_no",
    "strategyqa",
    domain="out",
    files={"train": "strategyqa_train.json", "test": "task.json"},
    read=read,
    rows=json_list,
    labels=("yes", "no"),
)
