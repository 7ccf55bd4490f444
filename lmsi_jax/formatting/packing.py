"""Packing of many short sequences into rows of one length, with segment ids that separate them."""

import bisect
import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from lmsi_jax.core.errors import UserError

MIN_SHARED = 16  # tokens; a shorter prefix is cheaper to repeat than to compute separately


@dataclasses.dataclass(frozen=True)
class Piece:
    """One training sequence. The tokens from `target_start` on have loss, each with weight `weight`.

    Pieces of one `group` may have a common prefix, such as the exemplars of a few-shot format.
    """

    tokens: Sequence[int]
    target_start: int
    group: str = ""
    weight: float = 1.0
    difficulty: float = 0.0  # by which a curriculum orders rows


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows for the training step. The first five arrays are (rows, row_length).

    Example, row_length 8, pieces [1 5 6 2] with target_start 2 and [1 7 2] with target_start 1::

        tokens     1 5 6 2 1 7 2 0
        targets    5 6 2 0 7 2 0 0      the next token of the same piece
        weights    0 1 1 0 1 1 0 0      weight of the loss of that target
        segments   1 1 1 1 2 2 2 0      0 = padding
        positions  0 1 2 3 0 1 2 0

    A common prefix of pieces may be stored once, in `prompts`. Row r then continues `prompts[prompt[r] - 1]`: each of its
    pieces attends to all tokens of that prompt, and its positions start after them. `prompt[r]` is 0 when the pieces of row r
    are complete.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    prompt: np.ndarray  # (rows,)
    prompts: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def padding(self) -> float:
        """The share of slots that are padding."""
        return float(np.mean(self.segments == 0)) if len(self) else 0.0

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of the rows with these indices, by name."""
        return {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self) if field.name != "prompts"}


def common_prefixes(pieces: Sequence[Piece]) -> dict[str, tuple[int, ...]]:
    """Return the common prefix of all pieces of a group, for each group where it is worth computing once.

    A group needs at least two pieces and a prefix of `MIN_SHARED` tokens. Each piece keeps at least one token before its
    target, since the logits of that token predict the target.
    """
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.group, []).append(piece)
    shared = {}
    for name, members in groups.items():
        common = os.path.commonprefix([list(piece.tokens) for piece in members])
        length = min(len(common), *(piece.target_start - 1 for piece in members))
        if length >= MIN_SHARED and len(members) > 1:
            shared[name] = tuple(common[:length])
    return shared


def assign_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Return the indices of the pieces of each row.

    The longest piece comes first, and each is put into the row with the least room in which it fits (best fit). Raises
    UserError when a piece is longer than a row.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free slots, row), sorted
    for i in order:
        length = lengths[i]
        if length > row_length:
            raise UserError(
                f"A training sequence of {length} tokens does not fit a row of row_length={row_length}; set row_length to "
                f"at least {length}, or use fewer exemplars (--config.data.shots)."
            )
        at = bisect.bisect_left(room, (length, -1))
        if at == len(room):
            rows.append([])
            free, row = row_length, len(rows) - 1
        else:
            free, row = room.pop(at)
        rows[row].append(i)
        if free > length:
            bisect.insort(room, (free - length, row))
    return rows


def pack(pieces: Sequence[Piece], row_length: int, share: bool = False, levels: int = 1) -> PackedRows:
    """Pack `pieces` into rows of `row_length` tokens. Raises UserError when a piece is longer than a row.

    With `share`, the common prefix of a group is stored once in `prompts`, and a row only has pieces with the same prefix.
    The loss and its gradient are those of the complete pieces. With several `levels`, pieces are divided by their difficulty
    into so many parts of equal number; a row only has pieces of one level, and the rows of easy levels come first.
    """
    prefixes = common_prefixes(pieces) if share else {}
    prompts = tuple(dict.fromkeys(prefixes.values()))
    if levels > 1:
        pieces = sorted(pieces, key=lambda piece: piece.difficulty)
    rows: list[tuple[int, list[Piece]]] = []
    for level in range(levels):
        part = pieces[level * len(pieces) // levels : (level + 1) * len(pieces) // levels]
        for number, prompt in enumerate([(), *prompts]):
            members = [piece for piece in part if prefixes.get(piece.group, ()) == prompt]
            assigned = assign_rows([len(piece.tokens) - len(prompt) for piece in members], row_length)
            rows += [(number, [members[i] for i in row]) for row in assigned]
    shape = (len(rows), row_length)
    tokens, targets, segments, positions = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    for r, (number, members) in enumerate(rows):
        start, before = 0, len(prompts[number - 1]) if number else 0
        for segment, piece in enumerate(members, start=1):
            n = len(piece.tokens) - before
            at = slice(start, start + n)
            tokens[r, at] = piece.tokens[before:]
            targets[r, start : start + n - 1] = piece.tokens[before + 1 :]
            weights[r, start + max(piece.target_start - before - 1, 0) : start + n - 1] = piece.weight
            segments[r, at] = segment
            positions[r, at] = before + np.arange(n)
            start += n
    numbers = np.array([number for number, _ in rows], np.int32)
    return PackedRows(tokens, targets, weights, segments, positions, numbers, prompts)
