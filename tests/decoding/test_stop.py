import random
import time

import numpy as np
import pytest

from lmsi_jax.decoding.stop import START, StopTables, cut


def table_of(stops, pieces, vocab=0):
    """The table of one set of stop strings, and the state that means "matched"."""
    table, starts = StopTables(pieces, vocab).table([stops])
    assert starts == [START]
    return table, len(table) - 1


def feed(table, tokens, start=START):
    """The states after each token."""
    states, state = [], start
    for token in tokens:
        state = int(table[state, token])
        states.append(state)
    return states


def draw(seed):
    """Pieces of a vocabulary, and a function that draws stop strings of the same letters."""
    rng = random.Random(seed)
    word = lambda n: "".join(rng.choice("ab\n") for _ in range(n))  # noqa: E731
    pieces = [b""] + [word(rng.randint(1, 4)).encode() for _ in range(12)]
    return rng, pieces, lambda: tuple(word(rng.randint(1, 5)) for _ in range(rng.randint(1, 4)))


@pytest.mark.parametrize("seed", range(20))
def test_equals_searching_the_text(seed):
    """Catches: a failure link that is wrong, so that overlapping stop strings or restarts are missed."""
    rng, pieces, draw_stops = draw(seed)
    stops = draw_stops()
    table, matched = table_of(stops, pieces)
    for _ in range(30):
        tokens = [rng.randrange(len(pieces)) for _ in range(12)]
        text = b""
        for token, state in zip(tokens, feed(table, tokens), strict=True):
            text += pieces[token]
            assert (state == matched) == any(stop.encode() in text for stop in stops)


@pytest.mark.parametrize("seed", range(20))
def test_several_sets_in_one_table_are_the_tables_of_each_alone(seed):
    """Catches: a path that ends by the stop string of another request of its call, or that goes over into its states."""
    _, pieces, draw_stops = draw(seed)
    stop_sets = [draw_stops(), (), draw_stops(), ("\u20acx",), draw_stops()]
    tables = StopTables(pieces, vocab=len(pieces) + 3)
    together, starts = tables.table(stop_sets)
    matched, rows = len(together) - 1, 0
    for stops, start in zip(stop_sets, starts, strict=True):
        alone, (first,) = tables.table([stops])
        states = len(alone) - 1  # but for the one that means "matched", which all sets share
        names = np.array([*range(start, start + states), matched])
        np.testing.assert_array_equal(together[names], names[alone])
        assert first == START
        rows += states
    assert rows == matched and (together[matched] == matched).all()


def test_a_table_of_a_large_vocabulary_takes_no_time():
    """Catches: a loop in Python over states and tokens, for which every call with new stop strings waits half a minute."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 12, 150_000)
    data = rng.integers(0, 256, int(sizes.sum()), np.uint8).tobytes()
    ends = np.cumsum(sizes)
    pieces = [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    tables, seconds = StopTables(pieces), []
    for _ in range(3):  # the least of three, as other processes may have the machine
        start = time.perf_counter()
        table, _ = tables.table([("\nQ:", "\n\n", "Question:", "\u20ac")])
        seconds.append(time.perf_counter() - start)
    assert table.shape[1] == 150_000 and min(seconds) < 0.5, seconds


def test_stop_across_tokens_and_inside_a_character():
    """Catches: matching on decoded text, which does not exist until a character is complete."""
    euro = "\u20ac".encode()
    table, matched = table_of(("x\u20ac",), [euro[:1], euro[1:], b"yx", b"x"])
    assert feed(table, [2, 0, 1])[-1] == matched
    assert feed(table, [2, 1])[-1] != matched


def test_no_stop_strings():
    """Catches: an empty list that stops everything."""
    table, matched = table_of((), [b"a", b"b"])
    assert matched not in feed(table, [0, 1, 0])


def test_rows_of_the_embedding_without_a_token():
    """Catches: a table as limit_paths as the tokenizer, beyond whose end the spare rows of an embedding are looked up."""
    table, matched = table_of(("ab",), [b"a", b"b"], vocab=5)
    assert table.shape[1] == 5
    assert feed(table, [0, 4, 3, 1])[-1] == matched, "they stand for no bytes"


def test_cut_takes_the_first_of_several():
    """Catches: the first string of the list winning over the first in the text."""
    assert cut("one two three", ("three", "two")) == "one "
    assert cut("one", ("two",)) == "one"
