import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.packing import Piece, assign_rows, common_prefixes, pack


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


def test_shared_beginnings_are_taken_out_and_can_be_put_back():
    """Catches: a piece behind the wrong prompt, a target that loses the token it is predicted from, a shifted position."""
    prompts = {"cot": list(range(100, 130)), "direct": list(range(200, 220)), "short": [7] * 3, "one": list(range(300, 340))}
    pieces = [
        Piece([*prompts[group], 50 + i, *([60 + i] * (i % 5 + 1)), 2], len(prompts[group]) + 1, group, 0.5 + i)
        for i, group in enumerate(["cot", "direct", "short", "cot", "cot", "short", "direct", "one"])
    ]
    assert {name: len(found) for name, found in common_prefixes(pieces).items()} == {"cot": 30, "direct": 20}
    rows, found = pack(pieces, 45, share=True), []
    assert rows.prompts == (tuple(prompts["cot"]), tuple(prompts["direct"])) and sorted(set(rows.prompt)) == [0, 1, 2]
    for row in range(len(rows)):
        for segment in range(1, rows.segments[row].max() + 1):
            at = np.flatnonzero(rows.segments[row] == segment)
            before = rows.prompts[rows.prompt[row] - 1] if rows.prompt[row] else ()
            tokens = [*before, *rows.tokens[row, at].tolist()]
            assert rows.positions[row, at].tolist() == list(range(len(before), len(tokens)))
            assert rows.targets[row, at].tolist() == [*tokens[len(before) + 1 :], 0]
            weights = rows.weights[row, at]
            found.append((tokens, len(tokens) - int(np.sum(weights > 0)), float(weights.max())))
    assert sorted(found) == sorted((list(p.tokens), p.target_start, p.weight) for p in pieces)


def test_a_beginning_that_reaches_the_target_leaves_it_a_token():
    """Catches: a target whose first token nothing predicts, because all before it was taken out."""
    pieces = [Piece([*range(40), target, 2], 40, "same") for target in (50, 51)]
    assert common_prefixes(pieces) == {"same": tuple(range(39))}
    assert pack(pieces, 8, share=True).weights.sum() == 4
