import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.voting.calibration import accuracy_by_confidence, accuracy_by_paths
from lmsi_jax.voting.majority import vote
from lmsi_jax.voting.select import select, select_gold, select_random

ANSWERS = st.lists(st.one_of(st.none(), st.sampled_from("abcd")), min_size=1, max_size=40)


def test_docstring_example():
    """Catches: a confidence that leaves abstentions out of m."""
    outcome = vote(["4", None, "5", "4"])
    assert (outcome.answer, outcome.confidence, outcome.margin, outcome.kept) == ("4", 0.5, 0.25, (0, 3))


@given(ANSWERS, st.randoms(use_true_random=False))
def test_order_does_not_matter(answers, random):
    """Catches: a vote that depends on the order of paths (but for ties, which have a rule of their own)."""
    shuffled = list(answers)
    random.shuffle(shuffled)
    before, after = vote(answers, tie="random", seed="q"), vote(shuffled, tie="random", seed="q")
    assert before.answer == after.answer
    assert before.confidence == after.confidence
    assert before.margin == after.margin
    assert dict(before.counts) == dict(after.counts)


@given(ANSWERS)
def test_abstentions_never_win(answers):
    """Catches: unparsed paths counted as an answer of their own."""
    outcome = vote(answers + [None] * 50)
    assert None not in outcome.counts
    assert (outcome.answer is None) == all(a is None for a in answers)
    assert outcome.confidence == outcome.counts.get(outcome.answer, 0) / (len(answers) + 50)


@given(ANSWERS, st.integers(2, 4))
def test_repeating_all_paths_changes_nothing(answers, times):
    """Catches: a confidence that is not a share."""
    assert vote(answers * times).answer == vote(answers).answer
    assert vote(answers * times).confidence == pytest.approx(vote(answers).confidence)


def test_ties_follow_their_rule():
    """Catches: a tie rule that is ignored."""
    tied = ["b", "a", "a", "b"]
    assert vote(tied, tie="first").answer == "b"
    assert vote(tied, tie="abstain").answer is None
    assert vote(tied, tie="abstain").kept == ()
    drawn = {vote(tied, tie="random", seed=str(i)).answer for i in range(20)}
    assert drawn == {"a", "b"}
    with pytest.raises(ValueError, match="tie='last'"):
        vote(tied, tie="last")


def test_select_narrows_as_told():
    """Catches: options applied in the wrong order, or to the question instead of the path."""
    texts = ["one", "other", " one ", "two", "three"]
    outcome = vote(["x", "y", "x", "x", "x"])
    assert select(outcome, texts) == [0, 2, 3, 4]
    assert select(outcome, texts, distinct=True) == [0, 3, 4]
    assert select(outcome, texts, distinct=True, max_paths=2) == [0, 3]
    assert select(outcome, texts, min_confidence=0.8) == [0, 2, 3, 4]
    assert select(outcome, texts, min_confidence=0.81) == []


def test_controls():
    """Catches: a control that takes part in the vote, or that trains on paths without an answer."""
    answers = ["x", None, "y", "x"]
    assert select_gold(answers, "y") == [2]
    picked = {tuple(select_random(answers, 1, f"seed {i}")) for i in range(40)}
    assert picked == {(0,), (2,), (3,)}
    assert select_random([None, None], 1, "s") == []


def test_accuracy_by_confidence():
    """Catches: a question that falls between bins, or into two."""
    bins = accuracy_by_confidence([0.0, 0.1, 0.25, 0.5, 0.51, 1.0], [False, True, True, False, True, True], bins=4)
    assert [(b.count, b.correct) for b in bins] == [(3, 2), (1, 0), (1, 1), (1, 1)]
    assert sum(b.count for b in bins) == 6


def test_accuracy_by_paths_is_unbiased_at_one_and_exact_at_m():
    """Catches: taking the first k paths, or drawing them with replacement."""
    answers = [["a", "a", "b", "c"], ["b", "b", "b", "a"]]
    curve = accuracy_by_paths(answers, ["a", "a"], [1, 4], draws=4000)
    assert curve[1] == pytest.approx((2 / 4 + 1 / 4) / 2, abs=0.03)
    assert curve[4] == 0.5
