"""Leaves near copies out of a file of texts."""

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, numbered_jsonl, write_jsonl
from lmsi_jax.tasks.near_copies import Copy, Kind, near_copies


def dedup_file(
    source: epath.Path,
    output: epath.Path,
    kind: Kind,
    field: str,
    threshold: float,
    against: epath.Path | None = None,
    copies: epath.Path | None = None,
) -> None:
    """Write the rows of `source` whose text, in `field`, is no near copy of an earlier one, or of one in the file `against`.

    Rows are written unchanged. Those that are left out go to the file `copies`, with the `row` and the file of what they
    resemble, their `similarity`, and the `reason`. Raises UserError, with file and line, for a row without the text.
    """
    rows, texts = _read(source, field)
    _, others = _read(against, field) if against else ([], [])
    found = near_copies(texts, threshold, kind, others)
    left_out = {copy.text for copy in found}
    write_jsonl(output, (row for i, row in enumerate(rows) if i not in left_out))
    if copies:
        write_jsonl(copies, ({**rows[copy.text], "copy": _described(copy, str(against or ""))} for copy in found))
    near, of_others = sum(copy.reason == "near" for copy in found), sum(copy.of_other for copy in found)
    console.print(
        f"{len(rows) - len(found):,} of {len(rows):,} rows stay; {near:,} are near copies, {len(found) - near:,} share a run "
        f"of words. The other text is in the other file for {of_others:,} of these.",
        markup=False,
    )


def _read(file: epath.Path, field: str) -> tuple[list[Record], list[str]]:
    rows, texts = [], []
    for line, row in numbered_jsonl(file):
        if field not in row:
            names = ", ".join(row) or "none"
            raise UserError(f"{file} line {line}: there is no text in '{field}'; the fields are {names}. Name one by --field.")
        if not isinstance(row[field], str):
            raise UserError(f"{file} line {line}: '{field}' is {row[field]!r:.60}, and must be text.")
        rows.append(row)
        texts.append(row[field])
    return rows, texts


def _described(copy: Copy, against: str) -> Record:
    where = {"file": against} if copy.of_other else {}
    return {**where, "row": copy.of + 1, "similarity": round(copy.similarity, 3), "reason": copy.reason}
