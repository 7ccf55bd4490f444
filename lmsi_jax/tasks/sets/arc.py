"""ARC-Challenge (Clark et al. 2018, arXiv 1803.05457): school science questions that a search does not answer."""

from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import Dataset, Row


def read_choices(row: Row) -> Record:
    """Read a line of ARC, OpenBookQA or CommonsenseQA, which share one format."""
    options = row.get("question", "choices")
    if not isinstance(options, list) or not all(isinstance(o, dict) and {"text", "label"} <= o.keys() for o in options):
        raise row.bad("question.choices", f"is {options!r:.80}, not a list of objects with `text` and `label`")
    texts, labels = [o["text"] for o in options], [o["label"] for o in options]
    options = row.choice(texts, row.text("answerKey"), labels, "question.choices")
    return {"id": row.text("id"), "question": row.text("question", "stem"), **options}


def read_tfds(row: Row) -> Record:
    """Read a TFDS row, whose labels are class numbers (0 is A)."""
    choices = row.get("choices")
    labels = [LETTERS[int(label)] for label in choices["label"]]
    options = row.choice(list(choices["text"]), LETTERS[int(row.get("answerKey"))], labels, "choices")
    return {"id": row.text("id"), "question": row.text("question"), **options}


ARC_CHALLENGE = Dataset(
    "arc_challenge",
    "choice",
    "arc_challenge",
    domain="in",
    train="train",
    files={
        split: f"ARC-Challenge-{name}.jsonl" for split, name in (("train", "Train"), ("validation", "Dev"), ("test", "Test"))
    },
    read=read_choices,
    tfds="ai2_arc/ARC-Challenge",
    read_tfds=read_tfds,
)
