"""What a published data set is, and rows that say where they are wrong."""

import itertools
import json
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import BOM, Record, finite, numbered_jsonl
from lmsi_jax.core.text import clean

LETTERS = string.ascii_uppercase


class BadRow(UserError):
    """A row that cannot be read; says file, row and field."""


@dataclass(frozen=True)
class Row:
    """One row of a data set's own format, and where it stands."""

    fields: Mapping[str, Any]
    where: str

    def get(self, *names: str) -> Any:
        """The value at a path of field names. Raises BadRow when one is not there."""
        value: Any = self.fields
        for name in names:
            if not isinstance(value, Mapping) or name not in value:
                raise self.bad(".".join(names), "is missing")
            value = value[name]
        return value

    def text(self, *names: str) -> str:
        """The same, for text that is not empty."""
        value = self.get(*names)
        if not isinstance(value, str) or not value.strip():
            raise self.bad(".".join(names), f"is {value!r:.60}, not text")
        return value.strip()

    def number(self, *names: str) -> str:
        """The same, for a number that is written as one: 5.0 is "5"."""
        value = self.get(*names)
        if finite(value) is None:
            raise self.bad(".".join(names), f"is {value!r:.60}, not a number")
        return str(int(value)) if value == int(value) else repr(value)

    def one_of(self, labels: Mapping[Any, str], *names: str) -> str:
        """The label that stands for the value."""
        value = self.get(*names)
        if not isinstance(value, str | int) or value not in labels:
            raise self.bad(".".join(names), f"is {value!r:.60}, not one of {', '.join(map(str, labels))}")
        return labels[value]

    def choice(self, choices: list[str], key: str, labels: list[str], name: str) -> Record:
        """The options, and the letter of the right one. Sets label their options A, B, .. or 1, 2, .. ."""
        texts = all(isinstance(text, str) and text.strip() for text in choices)
        named = all(isinstance(label, str) for label in labels) and len(set(labels)) == len(labels)
        if not 2 <= len(choices) == len(labels) <= len(LETTERS) or not texts or not named:
            raise self.bad(name, f"holds the options {choices!r:.80} under the labels {labels!r:.40}")
        if key not in labels:
            raise self.bad(name, f"names the option {key!r}, and there are {', '.join(labels)}")
        return {"choices": [text.strip() for text in choices], "answer": LETTERS[labels.index(key)]}

    def bad(self, name: str, why: str) -> BadRow:
        return BadRow(f"{self.where}: the field `{name}` {why}.")


def json_lines(path: epath.Path) -> Iterator[Row]:
    """A file with one JSON object a line."""
    for number, fields in numbered_jsonl(path):
        yield Row(fields, f"{path} line {number}")


def json_list(path: epath.Path) -> Iterator[Row]:
    """A file that is one JSON list of objects, or (BIG-bench) an object with such a list as its `examples`."""
    content = read_json(path)
    rows = content.get("examples") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise UserError(f"{path}: neither a JSON list of questions nor an object with a list `examples`.")
    for number, fields in enumerate(rows, start=1):
        if not isinstance(fields, dict):
            raise UserError(f"{path} item {number}: a JSON {type(fields).__name__}, not an object {{...}}.")
        yield Row(fields, f"{path} item {number}")


def tab_separated(path: epath.Path) -> Iterator[Row]:
    """A table with a header line, without quotes (GLUE)."""
    try:
        # Newlines alone end a row: `splitlines` would split at U+2028, U+0085 and form feeds within a sentence too.
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
    """A published data set: where its questions are, and how they are asked and scored.

    `read` and `read_tfds` turn a row into `question`, `choices` (if any), `answer` (and `answers`, all that are right) and
    maybe `id`; None for a row that the set itself marks as having no answer.
    """

    name: str
    answer_type: Literal["number", "choice", "yes_no", "span"]
    exemplars: str  # a file of tasks/exemplars
    domain: Literal["in", "out"]  # of the paper: trained on its questions, or only tested on
    train: str  # the split to self-train on; "" = none
    test: str  # the split the paper scores
    files: Mapping[str, str]  # split -> file, as published
    read: Callable[[Row], Record | None]
    rows: Callable[[epath.Path], Iterator[Row]] = json_lines
    labels: tuple[str, ...] = ()  # the answers there can be, if fewer than the type has
    tfds: str = ""  # "name/config"
    tfds_splits: Mapping[str, str] = field(default_factory=dict)  # split -> its name there
    read_tfds: Callable[[Row], Record | None] | None = None
