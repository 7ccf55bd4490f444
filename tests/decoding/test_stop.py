import random

import pytest

from lmsi_jax.decoding.stop import START, cut, stop_table


def feed(table, tokens):
    """The states after each token."""
    states, state = [], START
    for token in tokens:
        state = int(table[state, token])
        states.append(state)
    return states


@pytest.mark.parametrize("seed", range(20))
def test_equals_searching_the_text(seed):
    """Catches: a failure link that is wrong, so that overlapping stop strings or restarts are missed."""
    rng = random.Random(seed)
    word = lambda n: "".join(rng.choice("ab\n") for _ in range(n))  # noqa: E731
    pieces = [b""] + [word(rng.randint(1, 4)).encode() for _ in range(12)]
    stops = tuple(word(rng.randint(1, 5)) for _ in range(rng.randint(1, 4)))
    table, matched = stop_table(stops, pieces)
    for _ in range(30):
        tokens = [rng.randrange(len(pieces)) for _ in range(12)]
        text = b""
        for token, state in zip(tokens, feed(table, tokens), strict=True):
            text += pieces[token]
            assert (state == matched) == any(stop.encode() in text for stop in stops)


def test_stop_across_tokens_and_inside_a_character():
    """Catches: matching on decoded text, which does not exist until a character is complete."""
    euro = "\u20ac".encode()
    table, matched = stop_table(("x\u20ac",), [euro[:1], euro[1:], b"yx", b"x"])
    assert feed(table, [2, 0, 1])[-1] == matched
    assert feed(table, [2, 1])[-1] != matched


def test_no_stop_strings():
    """Catches: an empty list that stops everything."""
    table, matched = stop_table((), [b"a", b"b"])
    assert matched not in feed(table, [0, 1, 0])


def test_cut_takes_the_first_of_several():
    """Catches: the first string of the list winning over the first in the text."""
    assert cut("one two three", ("three", "two")) == "one "
    assert cut("one", ("two",)) == "one"
