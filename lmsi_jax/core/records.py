"""JSON Lines records: one JSON object per line, UTF-8. Whatever is read can be written, and whatever is written can be read."""

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
BOM = b"\xef\xbb\xbf"  # byte order mark, which some editors write at the start of a file
STANDARD = "-"  # stands for standard input or output where a file is named
MOST_NESTED = 100  # maximum depth of nested lists and objects


def dumps(value: Any) -> str:
    """Return `value` as JSON on one line, with keys in their given order. NaN and infinities, which JSON lacks, become null."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def finite(value: Any) -> float | None:
    """Return a number as a float; None for NaN, an infinity, an integer too large for a float, a boolean or a non-number."""
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
    """Return 16 hex digits that identify `values`, which are JSON-able. The order of keys does not matter."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_jsonl(path: os.PathLike | str, records: Iterable[Record]) -> int:
    """Write records, one JSON object per line, and return their number. "-" is standard output."""
    lines = [clean(dumps(record)) + "\n" for record in records]
    if str(path) == STANDARD:
        sys.stdout.buffer.write("".join(lines).encode("utf-8"))
        sys.stdout.flush()
    else:
        write_text(path, "".join(lines))
    return len(lines)


def read_jsonl(file: os.PathLike | str) -> Iterator[Record]:
    """Yield the records of a JSON Lines file or of standard input ("-"). Raises UserError with file, line and remedy."""
    return (record for _, record in numbered_jsonl(file))


def read_growing(file: os.PathLike | str) -> list[Record]:
    """Return the records of a file to which another process may be appending. An unfinished last line is left out."""
    *lines, last = epath.Path(file).read_bytes().split(b"\n")
    lines += [last] if is_record(last) else []
    return [record for _, record in _parse_lines(lines, str(file))]


def is_record(line: bytes) -> bool:
    """Return whether a line is a complete record."""
    try:
        _parse(line, "")
    except UserError:
        return False
    return True


def numbered_jsonl(file: os.PathLike | str) -> Iterator[tuple[int, Record]]:
    """Yield (line number, record) as `read_jsonl` does; lines are counted from 1."""
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
            f"{where}: not valid JSON ({error}). Each line must be one JSON object; the line starts with "
            f"{line[:60].decode('utf-8', 'replace')!r}."
        ) from error
    except RecursionError as error:
        raise UserError(
            f"{where}: lists and objects are nested more than {MOST_NESTED} deep; leave out the field that contains them."
        ) from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON {type(record).__name__}, not an object {{...}}.")
    return clean(record) if b"\\u" in line else record


def _depth(value: Any) -> int:
    """Return the maximum depth of nested lists and objects."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(item) for item in items if isinstance(item, dict | list)), default=0)
