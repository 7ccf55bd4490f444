"""Accuracy by the size of the question on planted cases."""

from lmsi_jax.analysis.limits.sizes import sizes

N = 240


def question(i):
    return f"Box {i} has " + ", ".join(["7 nails"] * (2 + i % 4)) + ". How many nails are there?"


def scored(is_right, tokens):
    return [{"id": str(i), "correct": is_right(i), "num_tokens": tokens(i)} for i in range(N)]


QUESTIONS = {str(i): question(i) for i in range(N)}
BASE = scored(lambda i: i % 8 < 4, lambda i: 10 * (3 + i % 4))


def test_a_loss_on_long_questions_behind_a_gain_is_named():
    """Catches: a penalty of long answers that ruins long questions while the overall accuracy rises."""
    short_answers = scored(lambda i: i % 4 < 3, lambda _: 12)
    limit = sizes({"base": BASE, "rl": short_answers}, QUESTIONS)
    assert sum(row["correct"] for row in short_answers) > sum(row["correct"] for row in BASE)
    assert limit.warns and limit.sentence.endswith("It fell on those with 6.")
    assert [row[0] for row in limit.rows] == ["3", "4", "5", "6"] and limit.head[0] == "quantities"
    assert limit.rows[-1][1:4] == ("60", "50.0%", "0.0%") and limit.rows[-1][-2:] == ("60", "12")


def test_chance_is_no_loss():
    """Catches: a warning in every second run, since one of several sizes mostly falls by a question or two."""
    other = scored(lambda i: i % 8 < 4 and i > 12 or i == 5, lambda i: 10 * (3 + i % 4))
    limit = sizes({"base": BASE, "round-1": other}, QUESTIONS)
    assert not limit.warns and "fell" not in limit.sentence


def test_sizes_without_numbers_rare_sizes_and_one_size():
    """Catches: groups of three questions with their noise, and a crash on questions without quantities or of equal size."""
    words = {str(i): " ".join(["why"] * (3 + i // 40)) + "?" for i in range(N)}
    limit = sizes({"base": BASE, "round-1": BASE}, words)
    assert limit.head[0] == "words" and sum(int(row[1]) for row in limit.rows) == N and not limit.warns
    rare = QUESTIONS | {"0": "Add " + ", ".join("1" * 30) + "."}
    assert sizes({"base": BASE, "round-1": BASE}, rare).rows[-1][0] == "6 to 30"
    assert sizes({"base": BASE, "round-1": BASE}, {id: "2 + 2?" for id in words}) is None
    assert sizes({"base": BASE}, QUESTIONS) is None and sizes({"a": [], "b": []}, QUESTIONS) is None
