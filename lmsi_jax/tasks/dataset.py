"""Descriptions of published data sets, and readers for their rows, whose errors name file, row and field."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from etils import epath

from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import BOM, Record, finite, numbered_jsonl
from lmsi_jax.core.text import clean


class BadRow(UserError):
    """A row that cannot be read. The message names the file, row and field."""


@dataclass(frozen=True)
class Row:
    """One row in a data set's own format, and its file and position for error messages."""

    fields: Mapping[str, Any]
    where: str

    def get(self, *names: str) -> Any:
        """Return the value at a path of nested field names. Raises BadRow when a field is missing."""
        value: Any = self.fields
        for name in names:
            if not isinstance(value, Mapping) or name not in value:
                raise self.bad(".".join(names), "is missing")
            value = value[name]
        return value

    def text(self, *names: str) -> str:
        """Return a text, stripped. Raises BadRow when it is missing, blank or not text."""
        value = self.get(*names)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(".".join(names), f"is {value!r:.60}, not text")
        return value.strip()

    def number(self, *names: str) -> str:
        """Return a number as text ("5" for 5.0). Raises BadRow when it is missing or not a finite number."""
        value = self.get(*names)
        if finite(value) is None:
            raise self.bad(".".join(names), f"is {value!r:.60}, not a number")
        return str(int(value)) if value == int(value) else repr(value)

    def one_of(self, labels: Mapping[Any, str], *names: str) -> str:
        """Return the label of a value. Raises BadRow when the value has none."""
        value = self.get(*names)
        if not isinstance(value, str | int) or value not in labels:
            raise self.bad(".".join(names), f"is {value!r:.60}, not one of {', '.join(map(str, labels))}")
        return labels[value]

    def choice(self, choices: list[str], key: str, labels: list[str], name: str) -> Record:
        """Return the options as `choices`, and as `answer` the letter of the option whose label is `key`.

        `labels` are the data set's own: A, B, ... or 1, 2, ... Raises BadRow when labels or options are invalid.
        """
        texts = all(isinstance(text, str) and text.strip() for text in choices)
        named = all(isinstance(label, str) for label in labels) and len(set(labels)) == len(labels)
        if not 2 <= len(choices) == len(labels) <= len(LETTERS) or not texts or not named:
            raise self.bad(name, f"holds the options {choices!r:.80} under the labels {labels!r:.40}")
        if key not in labels:
            raise self.bad(name, f"names the option {key!r}, and there are {', '.join(labels)}")
        return {"choices": [text.strip() for text in choices], "answer": LETTERS[labels.index(key)]}

    def bad(self, name: str, why: str) -> BadRow:
        """Return the error for a field of this row."""
        return BadRow(f"{self.where}: the field `{name}` {why}.")


def json_lines(path: epath.Path) -> Iterator[Row]:
    """Yield the rows of a file with one JSON object a line."""
    for number, fields in numbered_jsonl(path):
        yield Row(fields, f"{path} line {number}")


def json_list(path: epath.Path) -> Iterator[Row]:
    """Yield the rows of a JSON list of objects, or (BIG-bench) of an object with such a list as its `examples`."""
    content = read_json(path)
    rows = content.get("examples") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise UserError(f"{path}: neither a JSON list of questions nor an object with a list `examples`.")
    for number, fields in enumerate(rows, start=1):
        if not isinstance(fields, dict):
            raise UserError(f"{path} item {number}: a JSON {type(fields).__name__}, not an object {{...}}.")
        yield Row(fields, f"{path} item {number}")


def tab_separated(path: epath.Path) -> Iterator[Row]:
    """Yield the rows of an unquoted tab-separated table with a header line (GLUE)."""
    try:
        # Only newlines end a row. `splitlines` would also split a sentence at U+2028, U+0085 and form feeds.
        lines = [line.removesuffix("\r") for line in path.read_bytes().removeprefix(BOM).decode("utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; fetch the file again.") from error
    header = lines[0].split("\t")
    for number, line in enumerate(lines[1:], start=2):
        if line:
            cells, where = line.split("\t"), f"{path} line {number}"
            row = Row(dict(itertools.zip_longest(header, cells[: len(header)])), where)
            yield row if len(cells) <= len(header) else Row({}, f"{where} has {len(cells)} cells under {len(header)} names")


def read_json(path: epath.Path) -> Any:
    try:
        return clean(json.loads(path.read_bytes().decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch the file again.") from error


@dataclass(frozen=True)
class Dataset:
    """A published data set: the files of its questions, and how they are prompted and scored.

    `read` and `read_tfds` return `question`, `answer` and optionally `id`, `choices` and `answers` (all that are accepted) of
    a row, or None when the data set marks the row as having no answer.
    """

    name: str
    answer_type: Literal["number", "choice", "yes_no", "span"]
    exemplars: str  # name of a file in tasks/exemplars, without its suffix
    domain: Literal["in", "out"]  # in the paper: trained on its questions, or only tested on
    files: Mapping[str, str]  # split -> name of its published file
    read: Callable[[Row], Record | None]
    train: str = ""  # the split to self-train on; "" = none
    test: str = "test"  # the split that the paper scores
    rows: Callable[[epath.Path], Iterator[Row]] = json_lines
    labels: tuple[str, ...] = ()  # the only valid answers; () = all of the type
    tfds: str = ""  # "name/config" in TensorFlow Datasets
    tfds_splits: Mapping[str, str] = field(default_factory=dict)  # split -> its name in TensorFlow Datasets, if another
    read_tfds: Callable[[Row], Record | None] | None = None
