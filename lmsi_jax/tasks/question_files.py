"""Reads questions from JSON Lines, JSON, CSV, TSV and Parquet files, and from data sets of the Hugging Face Hub."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from lmsi_jax.answers.extract import Answer, extract
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.core import hub
from lmsi_jax.core.errors import UserError, nearest
from lmsi_jax.core.records import Record
from lmsi_jax.core.text import clean
from lmsi_jax.tasks.config import COLUMNS
from lmsi_jax.tasks.dataset import Row, json_lines, json_list
from lmsi_jax.tasks.questions import checked_questions

DECLARED = ("number", "choice", "yes_no", "math")  # types of answers that a solution can declare
SUFFIXES = (".jsonl", ".parquet", ".json", ".csv", ".tsv")


def question_files(name: str) -> list[epath.Path]:
    """Return the files of a name: a file, or those of hf://datasets/ORG/NAME/CONFIG/SPLIT, in the cache of the hub."""
    if not hub.is_address(name):
        return [epath.Path(name)]
    address = hub.parse(name)
    if address.kind != "dataset":
        raise UserError(f"{name} is a model; questions are at hf://datasets/ORG/NAME/CONFIG/SPLIT.")
    names = hub.listed(address)
    chosen = _chosen(names, address.path.strip("/"))
    if not chosen:
        usable = [file for file in names if file.endswith(SUFFIXES)]
        near = f" The nearest is {nearest(address.path, usable)}." if usable else ""
        raise UserError(
            f"{name}: the data set has no file '{address.path}' or '{address.path}-*' of the kinds {', '.join(SUFFIXES)}.{near}"
        )
    folder = hub.download(address, tuple(chosen))
    return [epath.Path(folder / file) for file in chosen]


def _chosen(names: Sequence[str], path: str) -> list[str]:
    """Return the files that a path names: itself, or the parts of a split such as main/train-00000-of-00001.parquet.

    CONFIG/SPLIT may also be the files data/SPLIT-* and SPLIT.jsonl of a data set with one config.
    """
    if path in names and path.endswith(SUFFIXES):
        return [path]
    _, _, split = path.rpartition("/")
    for suffix in (".parquet", *SUFFIXES):
        for start in (path, f"data/{path}", f"data/{split}", split):
            parts = [name for name in names if name.endswith(suffix) and _is_part(name, start)]
            if parts:
                return sorted(parts)
    return []


def _is_part(name: str, start: str) -> bool:
    rest = name.removeprefix(start)
    return bool(start) and rest != name and rest[0] in "-./" and "/" not in rest[1:]


def load_question_files(files: Sequence[epath.Path], columns: Mapping[str, str], answer_type: str, name: str) -> list[Record]:
    """Return the checked questions of files. `columns` maps our names (`COLUMNS`) to those of the files.

    An answer may be a solution that declares its result. With `columns`, and in other files than JSON Lines of one's own,
    further fields are left out; an answer may be the label or the index of an option, and the options a list of texts, or a
    mapping with `text` and `label`. Raises UserError with file, row and field.
    """
    if not columns and not hub.is_address(name) and all(str(file).endswith(".jsonl") for file in files):
        rows = (
            (f"{file} row {number}", _declared(dict(row.fields), answer_type))
            for file in files
            for number, row in enumerate(json_lines(file), 1)
        )
    else:
        names = {ours: columns.get(ours, ours) for ours in COLUMNS}
        rows = ((row.where, _mapped(row, names, columns, answer_type)) for file in files for row in _rows(file))
    return checked_questions(rows, name)


def _rows(file: epath.Path) -> Iterator[Row]:
    suffix = Path(str(file)).suffix
    if suffix == ".parquet":
        return _parquet(file)
    if suffix in (".csv", ".tsv"):
        return _table(file, "," if suffix == ".csv" else "\t")
    if suffix == ".json" and file.read_bytes()[:100].lstrip()[:1] == b"[":
        return json_list(file)
    return json_lines(file)


def _parquet(file: epath.Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with file.open("rb") as opened:
            number = 0
            for batch in parquet.ParquetFile(opened).iter_batches():
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(clean(fields), f"{file} row {number}")
    except pyarrow.ArrowException as error:
        raise UserError(f"{file}: not a Parquet file that can be read ({error}); fetch it again.") from error


def _table(file: epath.Path, separator: str) -> Iterator[Row]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines(keepends=True)
        for number, fields in enumerate(csv.DictReader(lines, delimiter=separator, strict=True), start=1):
            yield Row(fields, f"{file} row {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8 text; convert the file to UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"{file}: not a table of comma-separated values ({error}).") from error


def _mapped(row: Row, names: Mapping[str, str], given: Mapping[str, str], answer_type: str) -> Record:
    """Return the fields of a row under our names. A column that was named and is missing is an error."""
    for ours, theirs in given.items():
        if theirs not in row.fields:
            known = ", ".join(map(str, row.fields))
            raise UserError(f"{row.where}: there is no column '{theirs}' (data.columns.{ours}); there are {known}.")
    found = {ours: row.fields[theirs] for ours, theirs in names.items() if row.fields.get(theirs) is not None}
    options, labels = _options(found.get("choices"))
    result: Record = {"question": found.get("question")}
    if "id" in found:
        result["id"] = str(found["id"])
    if options is not None:
        result["choices"] = options
    if "answer" in found:
        result["answer"] = _answer(found["answer"], options, labels, answer_type)
    return result


def _options(value: Any) -> tuple[Any, list[str]]:
    """Return the texts of options and their labels, from a list of texts or a mapping with `text` and `label`."""
    if isinstance(value, Mapping) and "text" in value:
        texts = list(value["text"])
        return texts, [str(label) for label in value.get("label", LETTERS[: len(texts)])]
    return value, list(LETTERS[: len(value)]) if isinstance(value, list) else []


def _answer(value: Any, options: Any, labels: Sequence[str], answer_type: str) -> str:
    """Return a gold answer as our files have it: the letter of an option, or what a solution declares."""
    if isinstance(options, list) and options:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options) and str(value) not in labels:
            return LETTERS[value]
        if str(value) in labels:
            return LETTERS[list(labels).index(str(value))]
        return LETTERS[options.index(value)] if value in options else str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _result(str(value), answer_type)


def _declared(row: Record, answer_type: str) -> Record:
    """Return a row of ours whose answer is what it declares, if it is a text that declares one."""
    answer = row.get("answer")
    return {**row, "answer": _result(answer, answer_type)} if isinstance(answer, str) else row


def _result(answer: str, answer_type: str) -> str:
    """Return what a solution declares ("so 3 + 4 = 7. #### 7"), and any other answer as it is."""
    read = extract(answer, answer_type) if answer_type in DECLARED and len(answer.split()) > 1 else None
    return read.value if isinstance(read, Answer) else answer
