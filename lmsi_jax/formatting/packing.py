"""Packing many short pieces into rows of one length, with segment ids that keep them apart."""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from lmsi_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Piece:
    """One training sequence; tokens from `target_start` on carry loss."""

    tokens: Sequence[int]
    target_start: int


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows ready for the step; all arrays are (rows, row_length).

    Example, row_length 8, pieces [1 5 6 2] with target_start 2 and [1 7 2] with target_start 1::

        tokens     1 5 6 2 1 7 2 0
        targets    5 6 2 0 7 2 0 0      the token after, within the piece
        weights    0 1 1 0 1 1 0 0      does predicting that token count
        segments   1 1 1 1 2 2 2 0      0 = padding
        positions  0 1 2 3 0 1 2 0
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    segments: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def padding(self) -> float:
        """Share of slots that hold nothing."""
        return float(np.mean(self.segments == 0)) if len(self) else 0.0

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of some rows, by name."""
        return {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}


def assign_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Which pieces share a row: best fit, longest first (a row is chosen that leaves the least room)."""
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


def pack(pieces: Sequence[Piece], row_length: int) -> PackedRows:
    """Pack `pieces` into rows of `row_length` tokens. Raises UserError when a piece is longer than a row."""
    rows = assign_rows([len(piece.tokens) for piece in pieces], row_length)
    shape = (len(rows), row_length)
    tokens, targets, segments, positions = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    for r, members in enumerate(rows):
        start = 0
        for segment, i in enumerate(members, start=1):
            piece = pieces[i]
            n = len(piece.tokens)
            at = slice(start, start + n)
            tokens[r, at] = piece.tokens
            targets[r, start : start + n - 1] = piece.tokens[1:]
            weights[r, start + max(piece.target_start - 1, 0) : start + n - 1] = 1.0
            segments[r, at] = segment
            positions[r, at] = np.arange(n)
            start += n
    return PackedRows(tokens, targets, weights, segments, positions)
