from lmsi_jax.tasks.overlap import describe, overlap

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def rows(prefix, *texts, choices=None):
    return [{"id": f"{prefix}{i}", "question": text, "choices": choices} for i, text in enumerate(texts)]


def test_equal_and_shared_text():
    """Catches: a leak that hides behind case or punctuation; a common phrase taken for a leak."""
    training = rows("t", "How many eggs are left?", f"Start: {LONG}, and on it goes.", "Something else.")
    scored = rows(
        "s",
        "how many eggs ARE left ?",
        f"Other words first. {LONG.replace(' ', ', ', 3)}!",
        "one two three four five six seven eight nine ten eleven twelve",
        "A question of its own?",
    )
    found = overlap(training, scored)
    assert found.equal == [("s0", "t0")]
    assert found.shared == [("s1", "t1")], "twelve words in common are not enough"
    assert describe(1, 1, 4).startswith(
        "of 4 scored questions 1 are among those trained on, and 1 more share a run of 13 words"
    )
    assert not overlap(training, scored[3:]) and "none of 1 scored" in describe(0, 0, 1)


def test_options_tell_questions_apart():
    """Catches: two multiple-choice questions with one stem, taken for the same."""
    first, second = rows("t", "Which one?", choices=["a", "b"]), rows("s", "Which one?", choices=["c", "d"])
    assert not overlap(first, second)
    assert overlap(first, rows("s", "Which one?", choices=["a", "b"])).equal == [("s0", "t0")]


def test_a_layout_is_no_leak():
    """Catches: questions of one form, all of which end alike, that count as leaks of each other."""
    ask = (
        "Premise: p{0} q{0}.\nHypothesis: h{0} in the United States of America.\nBased on the premise, is the hypothesis true?"
    )
    training, scored = rows("t", *map(ask.format, range(30))), rows("s", *map(ask.format, range(100, 130)))
    assert not overlap(training, scored)
    assert overlap(training, rows("s", *map(ask.format, range(29, 59)))).equal == [("s0", "t29")]
