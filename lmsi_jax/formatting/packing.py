"""Packing many short pieces into rows of one length, with segment ids that keep them apart."""

import bisect
import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from lmsi_jax.core.errors import UserError

MIN_SHARED = 16  # tokens; a shorter beginning is cheaper repeated than computed apart


@dataclasses.dataclass(frozen=True)
class Piece:
    """One training sequence; tokens from `target_start` on carry loss, each as much as `weight`.

    Pieces of one `group` may begin alike, as those of a few-shot format do.
    """

    tokens: Sequence[int]
    target_start: int
    group: str = ""
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows ready for the step; the first five arrays are (rows, row_length).

    Example, row_length 8, pieces [1 5 6 2] with target_start 2 and [1 7 2] with target_start 1::

        tokens     1 5 6 2 1 7 2 0
        targets    5 6 2 0 7 2 0 0      the token after, within the piece
        weights    0 1 1 0 1 1 0 0      does predicting that token count
        segments   1 1 1 1 2 2 2 0      0 = padding
        positions  0 1 2 3 0 1 2 0

    Pieces that begin alike stand behind one copy of that beginning: row r continues `prompts[prompt[r] - 1]`, all of whose
    tokens each of its pieces sees, and positions go on from there; 0 = the row's pieces are whole.
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
        """Share of slots that hold nothing."""
        return float(np.mean(self.segments == 0)) if len(self) else 0.0

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of some rows, by name."""
        return {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self) if field.name != "prompts"}


def shared_beginnings(pieces: Sequence[Piece]) -> dict[str, tuple[int, ...]]:
    """The tokens that all pieces of a group begin with, of groups where that is worth computing once.

    At least one token before the target is left to each piece: its logits predict the target.
    """
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.group, []).append(piece)
    found = {}
    for name, members in groups.items():
        common = os.path.commonprefix([list(piece.tokens) for piece in members])
        length = min(len(common), *(piece.target_start - 1 for piece in members))
        if length >= MIN_SHARED and len(members) > 1:
            found[name] = tuple(common[:length])
    return found


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


def pack(pieces: Sequence[Piece], row_length: int, share: bool = False) -> PackedRows:
    """Pack `pieces` into rows of `row_length` tokens. Raises UserError when a piece is longer than a row.

    With `share` the beginnings that all pieces of a group have in common are taken out, and a row has pieces of one
    beginning; the loss and its gradient stay those of the whole pieces.
    """
    beginnings = shared_beginnings(pieces) if share else {}
    prompts = tuple(dict.fromkeys(beginnings.values()))
    rows: list[tuple[int, list[Piece]]] = []
    for number, prompt in enumerate([(), *prompts]):
        members = [piece for piece in pieces if beginnings.get(piece.group, ()) == prompt]
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
    return PackedRows(
        tokens, targets, weights, segments, positions, np.array([number for number, _ in rows], np.int32), prompts
    )
