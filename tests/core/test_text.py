"""Text that comes from elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.core.text import clean_text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("cut \ud83d", "cut \ufffd"),
        ("\ude00 late", "\ufffd late"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        ("\ud83dx", "\ufffdx"),
        ("\ufeffmark", "\ufeffmark"),
        ("nul \x00 line \u2028", "nul \x00 line \u2028"),
    ],
)
def test_surrogates(text, clean):
    """Catches: half a character that no file can hold, a pair that is lost, or other text that is changed."""
    assert clean_text(text) == clean


@given(st.text(st.characters(), max_size=20))
def test_whole_characters_are_left_alone(text):
    """Catches: a repair that changes text that needs none, such as a byte-order mark or characters beyond 16 bits."""
    assert clean_text(text) == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert clean_text(text) == text
    clean_text(text).encode()
