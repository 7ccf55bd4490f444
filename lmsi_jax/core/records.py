"""JSON Lines records: one JSON object a line, UTF-8. Whatever is read can be written, and whatever is written can be read."""

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import write_text
from lmsi_jax.core.text import clean

Record = dict[str, Any]
BOM = b"\xef\xbb\xbf"  # that some editors put in front of a file
STANDARD = "-"  # standard input or output, in place of a file
MOST_NESTED = 100  # lists and objects within each other


def dumps(value: Any) -> str:
    """JSON on one line, the same text for equal values. NaN and infinities, which JSON does not have, become null."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def finite(value: Any) -> float | None:
    """The number that a field holds; None for text, a truth value, NaN, an infinity, or an integer too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value


def fingerprint(*values: Any) -> str:
    """16 hex digits that change when any of `values` (JSON-able) does."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_jsonl(path: os.PathLike | str, records: Iterable[Record]) -> int:
    """Write records, one JSON object a line; returns their number. "-" is standard output."""
    lines = [clean(dumps(record)) + "\n" for record in records]
    if str(path) == STANDARD:
        sys.stdout.buffer.write("".join(lines).encode("utf-8"))
        sys.stdout.flush()
    else:
        write_text(path, "".join(lines))
    return len(lines)


def read_jsonl(file: os.PathLike | str) -> Iterator[Record]:
    """The records of a JSON Lines file, or of standard input ("-"). Errors name the file, the line and the remedy."""
    return (record for _, record in numbered_jsonl(file))


def numbered_jsonl(file: os.PathLike | str) -> Iterator[tuple[int, Record]]:
    """The same, each with the number of its line."""
    if str(file) == STANDARD:
        yield from _parse_lines(sys.stdin.buffer, "standard input")
        return
    path = epath.Path(file)
    if not path.exists():
        raise UserError(f"{path} does not exist; check the spelling, or run the stage that writes it first.")
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file with one JSON object a line.")
    with path.open("rb") as lines:
        yield from _parse_lines(lines, str(path))


def _parse_lines(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, Record]]:
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(BOM)
        if content.strip():
            yield number, _parse(content, f"{name} line {number}")


def _parse(line: bytes, where: str) -> Record:
    try:
        record = json.loads(line.decode("utf-8"))
        if _depth(record) > MOST_NESTED:
            raise RecursionError
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: byte {error.start} of the line (0x{line[error.start]:02x}) is not UTF-8 text. The file is binary or in "
            f"another encoding; convert it to UTF-8 JSON Lines."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{where}: not valid JSON ({error}). Each line must hold one JSON object; the line starts with "
            f"{line[:60].decode('utf-8', 'replace')!r}."
        ) from error
    except RecursionError as error:
        raise UserError(
            f"{where}: lists and objects are nested more than {MOST_NESTED} deep; leave out the field that holds them."
        ) from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON {type(record).__name__}, not an object {{...}}.")
    return clean(record) if b"\\u" in line else record


def _depth(value: Any) -> int:
    """How many lists and objects stand within each other, at most; counting ends above MOST_NESTED."""
    depth, level = 0, [value]
    while level and depth <= MOST_NESTED:
        level = [
            item
            for nested in level
            if isinstance(nested, dict | list)
            for item in (nested.values() if isinstance(nested, dict) else nested)
            if isinstance(item, dict | list)
        ]
        depth += 1
    return depth
