import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.tasks.answers import Abstention, Answer, canonical, extract

NUMBERS = [
    ("The answer is 18.", "18"),
    ("So the answer is $1,080.", "1080"),
    ("The answer is 10,800.00 dollars.", "10800"),
    ("The answer is -5.", "-5"),
    ("The answer is \u22125.", "-5"),
    ("The answer is 0.50.", "0.5"),
    ("The answer is .5.", "0.5"),
    ("The answer is 1/2.", "0.5"),
    (r"The answer is $\frac{1}{2}$.", "0.5"),
    ("The answer is 2/3.", "2/3"),
    ("The answer is 15%.", "15"),
    ("The answer is: 7", "7"),
    ("the Answer is  -$3.20", "-3.2"),
    ("The answer is 4. No, the answer is 5.", "5"),
    ("The answer is 12 apples\nQ: next? A: The answer is 99.", "12"),
    ("The answer is 1,2 and 3.", "1"),
    ("The answer is 007.", "7"),
]
OTHERS = [
    ("choice", "The answer is (b).", "B"),
    ("choice", "The answer is C.", "C"),
    ("choice", "The answer is (A) a big dog.", "A"),
    ("choice", "The answer is b", "B"),
    ("yes_no", "So the answer is Yes.", "yes"),
    ("yes_no", "The answer is no, it cannot.", "no"),
    ("text", "The answer is the Home Team.", "home team"),
    ("text", "The answer is Karl Brandt.", "karl brandt"),
]
NONE = [
    ("number", "", "empty"),
    ("number", "  \n", "empty"),
    ("number", "I do not know", "no_answer_phrase"),
    ("number", "The answer is unclear.", "no_number"),
    ("number", "The answer is 1/0.", "no_number"),
    ("choice", "The answer is unclear.", "no_choice"),
    ("yes_no", "The answer is maybe.", "no_yes_no"),
    ("text", "The answer is .", "no_text"),
    ("number", "Q: only the next question\n", "no_answer_phrase"),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_numbers(text, value):
    """Catches: a way of writing a number that is read as another number, or that splits a vote."""
    assert extract(text, "number") == Answer(value)


@pytest.mark.parametrize(("answer_type", "text", "value"), OTHERS)
def test_other_types(answer_type, text, value):
    """Catches: a letter taken from a word, case or articles that split a vote."""
    assert extract(text, answer_type) == Answer(value)


@pytest.mark.parametrize(("answer_type", "text", "reason"), NONE)
def test_abstentions_have_a_reason(answer_type, text, reason):
    """Catches: a guess where there is no answer."""
    assert extract(text, answer_type) == Abstention(reason)


def test_a_path_cut_at_its_longest_is_truncated():
    """Catches: truncation that looks like a parse failure."""
    assert extract("3 + 4 = 7. 7 + ", "number", "length") == Abstention("truncated")
    assert extract("The answer is", "number", "length") == Abstention("truncated")
    assert extract("The answer is 7. And", "number", "length") == Answer("7")


@given(st.integers(-(10**9), 10**9))
def test_formatted_integers_come_back(number):
    """Catches: separators, signs or units that change the value."""
    for shown in (f"{number}", f"{number:,}", f"{number}.", f"{number}.00", f"{number} dollars", f" {number:,}.0"):
        assert canonical(shown, "number") == str(number)


@given(st.text(max_size=200), st.sampled_from(["number", "choice", "yes_no", "text"]))
def test_nothing_raises_and_canonical_is_idempotent(text, answer_type):
    """Catches: an exception on text nobody thought of; a canonical form that is not one."""
    extract(f"The answer is {text}", answer_type)
    value = canonical(text, answer_type)
    if value is not None:
        assert canonical(value, answer_type) == value


def test_long_text_is_read_in_no_time():
    """Catches: a pattern that backtracks without end."""
    import time

    start = time.perf_counter()
    for text in ("1," * 20_000, "answer is " * 5_000, "(" * 20_000, "-" * 20_000, "1 " * 20_000):
        for answer_type in ("number", "choice", "yes_no", "text"):
            extract(f"The answer is {text}", answer_type)
    assert time.perf_counter() - start < 5
