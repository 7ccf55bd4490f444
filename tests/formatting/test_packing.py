import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.packing import Piece, assign_rows, pack


def test_docstring_example():
    """Catches: targets, weights or positions that are shifted by one."""
    rows = pack([Piece([1, 5, 6, 2], 2), Piece([1, 7, 2], 1)], 8)
    assert rows.tokens.tolist() == [[1, 5, 6, 2, 1, 7, 2, 0]]
    assert rows.targets.tolist() == [[5, 6, 2, 0, 7, 2, 0, 0]]
    assert rows.weights.tolist() == [[0, 1, 1, 0, 1, 1, 0, 0]]
    assert rows.segments.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0]]
    assert rows.padding == 1 / 8


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_every_piece_is_in_one_row_that_holds_it(lengths):
    """Catches: a lost or doubled piece, an overfull row."""
    rows = assign_rows(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 20 for row in rows)
    assert len(rows) <= 1 + 2 * sum(lengths) / 20  # no two rows could be one


def test_longer_than_a_row_names_the_numbers():
    """Catches: a silently cut example."""
    with pytest.raises(UserError, match="9 tokens does not fit a row of row_length=8"):
        pack([Piece(list(range(9)), 1)], 8)


def test_number_of_targets():
    """Catches: the first target of a piece, predicted from the prompt's last token, going without loss."""
    pieces = [Piece(list(range(1, n + 1)), start) for n, start in [(5, 3), (7, 1), (4, 2)]]
    assert pack(pieces, 10).weights.sum() == (5 - 3) + (7 - 1) + (4 - 2)
    assert np.all(pack(pieces, 10).segments.max(axis=1) >= 1)
