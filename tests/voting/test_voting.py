import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import build
from lmsi_jax.recipes.config import Config
from lmsi_jax.voting import adaptive
from lmsi_jax.voting.adaptive import (
    beta_confidence,
    beta_decided,
    forecast_decided,
    paths_needed,
    simulate_stopping,
    window_decided,
)
from lmsi_jax.voting.calibration import accuracy_by_confidence, calibration_error, pass_at_k, right_by_paths
from lmsi_jax.voting.config import SelectConfig
from lmsi_jax.voting.majority import probabilities, vote
from lmsi_jax.voting.select import RULES, VotedQuestion

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


def choose(rule, question, seed=0, **options):
    return RULES[rule].choose(SelectConfig(**options), question, seed)


def test_select_narrows_as_told():
    """Catches: options applied in the wrong order, or to the question instead of the path."""
    texts = ["one", "other", " one ", "two", "three"]
    answers = ["x", "y", "x", "x", "x"]
    outcome = vote(answers)
    question = VotedQuestion("q", texts, answers, outcome.kept, outcome.confidence)
    assert choose("majority", question) == [0, 2, 3, 4]
    assert choose("majority", question, distinct=True) == [0, 3, 4]
    assert choose("majority", question, distinct=True, max_paths=2) == [0, 3]
    assert choose("majority", question, min_confidence=0.8) == [0, 2, 3, 4]
    assert choose("majority", question, min_confidence=0.81) == []


def test_controls():
    """Catches: a control that takes part in the vote, that trains on paths without an answer, or that reads gold unasked."""
    question = VotedQuestion("q", ["a", "b", "c", "a"], ["x", None, "y", "x"], [0, 3], 0.5, [False, False, True, True])
    assert {tuple(choose("random", question, seed)) for seed in range(40)} == {(0,), (2,), (3,)}
    assert {tuple(choose("random", question, seed, max_paths=2)) for seed in range(40)} == {(0, 2), (0, 3), (2, 3)}
    assert choose("random", question, max_paths=9) == [0, 2, 3]
    assert choose("random", VotedQuestion("q", ["a", "b"], [None, None], [], 0.0)) == []
    assert choose("gold", question) == [2, 3] and choose("gold", question, max_paths=1) == [2]
    assert choose("gold", question, min_confidence=0.9) == [2, 3], "the upper bound has no vote to be sure of"
    repeated = dataclasses.replace(question, right=[True, False, True, True])
    assert choose("gold", repeated, distinct=True) == [0, 2]
    assert [name for name, rule in RULES.items() if rule.reads_gold] == ["gold"]


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if not rule.reads_gold])
def test_rules_that_read_no_gold_choose_alike_with_it(rule):
    """Catches: a rule that is not declared as one that reads gold, and does."""
    question = VotedQuestion("q", ["a", "b", "c", "a"], ["x", None, "y", "x"], [0, 3], 0.5)
    for right in itertools.product([False, True], repeat=4):
        assert choose(rule, dataclasses.replace(question, right=right)) == choose(rule, question)


def test_a_rule_is_a_function_and_its_draw_is_of_seed_and_question():
    """Catches: one draw for all questions, or another one each time."""
    questions = [VotedQuestion(f"q{i}", ["t"] * 9, ["x"] * 9, range(9), 1.0, [True] * 9) for i in range(20)]
    for rule in RULES:
        assert [choose(rule, q, 3) for q in questions] == [choose(rule, q, 3) for q in questions]
    assert len({tuple(choose("random", q, 3)) for q in questions}) > 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"select": {"rule": "best"}}, "select.rule='best' is not one of 'majority', 'random', 'gold'"),
        (
            {"sample": {"adaptive": {"rule": "soon"}}},
            "sample.adaptive.rule='soon' is not one of 'none', 'forecast', 'beta', 'window'",
        ),
    ],
)
def test_rules_that_are_not_there_are_refused_with_those_that_are(values, message):
    """Catches: a misspelled rule that ends in a KeyError when everything is sampled."""
    with pytest.raises(UserError, match=message):
        build(Config, values)


@pytest.mark.parametrize("rule", RULES)
def test_rules_of_selection_can_be_set(rule):
    """Catches: a row of RULES that settings refuse."""
    assert build(Config, {"select": {"rule": rule}}).select.rule == rule


@pytest.mark.parametrize("rule", adaptive.RULES)
def test_rules_of_stopping_can_be_set_and_go_by_their_options(rule):
    """Catches: a stopping rule that settings refuse, that decides a vote of nothing, or that leaves its options unread."""
    options = build(Config, {"sample": {"adaptive": {"rule": rule}}}).sample.adaptive
    strict, loose = (
        adaptive.RULES[options.rule](o, 32) for o in (options, dataclasses.replace(options, threshold=0.6, window=2))
    )
    assert not strict([]) and not strict([None] * 20)
    assert paths_needed(["x"] * 20, loose) < paths_needed(["x"] * 20, strict)


def test_accuracy_by_confidence():
    """Catches: a question that falls between bins, or into two."""
    bins = accuracy_by_confidence([0.0, 0.1, 0.25, 0.5, 0.51, 1.0], [False, True, True, False, True, True], bins=4)
    assert [(b.count, b.correct) for b in bins] == [(3, 2), (1, 0), (1, 1), (1, 1)]
    assert sum(b.count for b in bins) == 6


def test_right_by_paths_is_unbiased_at_one_and_exact_at_m():
    """Catches: taking the first k paths, or drawing them with replacement."""
    answers = [["a", "a", "b", "c"], ["b", "b", "b", "a"]]
    shares = right_by_paths(answers, [{"a"}, {"a", "c"}], [1, 4], draws=4000)
    assert shares[1] == pytest.approx([2 / 4, 1 / 4], abs=0.03)
    assert shares[4] == [1.0, 0.0]
    valid = [[False, False, True, False], [False, False, False, True]]
    shares = right_by_paths(answers, [{"b"}, {"a"}], [1, 2, 4], draws=4000, valid=valid)
    assert shares[4] == [1.0, 1.0], "the valid paths vote first"
    assert shares[1] == pytest.approx([1 / 4, 1 / 4], abs=0.03) and shares[2] == pytest.approx([1 / 2, 1 / 2], abs=0.03)


def test_calibration_error():
    """Catches: bins that count alike whatever they hold."""
    bins = accuracy_by_confidence([0.3, 0.4, 0.8, 0.8], [True, False, True, True], bins=2)
    assert calibration_error(bins) == pytest.approx((2 * abs(0.5 - 0.35) + 2 * abs(1.0 - 0.8)) / 4)
    assert calibration_error([]) == 0.0


def test_pass_at_k_against_every_subset():
    """Catches: the biased 1 - (1 - p)^k, or a subset that holds a path twice."""
    right = [[True, False, False, True, False], [False] * 5, [True] * 5]
    for k in range(1, 6):
        exact = [np.mean([any(s) for s in itertools.combinations(paths, k)]) for paths in right]
        assert pass_at_k(right, k) == pytest.approx(exact)
    with pytest.raises(ValueError, match="pass@6 needs 6 paths of each question, and one has 5"):
        pass_at_k(right, 6)


def test_a_path_that_abstains_does_not_make_the_others_underflow():
    """Catches: weights relative to a short path without an answer, beside which all that have one are 0 and tie."""
    answers, logprobs = [None, "1", "2", "2"], [-1.0, -1500.0, -900.0, -902.0]
    weights = probabilities(logprobs, [1, 500, 300, 300], [answer is not None for answer in answers], normalised=False)
    assert weights == pytest.approx([0.0, math.exp(-600), 1.0, math.exp(-2)])
    assert vote(answers, weights=weights).answer == "2"


def test_weights_of_self_consistency():
    """Catches: a sum where an average is asked for; a long path whose probability is taken for 0."""
    answers, logprobs, tokens = ["a", "a", "b", None], [-900.0, -903.0, -899.0, -1.0], [300, 300, 100, 1]
    voting = [answer is not None for answer in answers]
    raw = probabilities(logprobs, tokens, voting, normalised=False)
    assert raw == pytest.approx([math.exp(-1), math.exp(-4), 1.0, 0.0])
    even = probabilities(logprobs, tokens, voting, normalised=True)
    assert even == pytest.approx([1.0, math.exp(-0.01), math.exp(-5.99), 0.0])
    assert vote(answers, weights=raw).answer == "b"
    assert vote(answers, weights=even).answer == "a"
    three, weights = ["a", "a", "a", "b"], [0.4, 0.4, 0.4, 0.9]
    summed, mean = vote(three, weights=weights), vote(three, weights=weights, aggregate="average")
    assert (summed.answer, mean.answer) == ("a", "b")
    assert summed.scores == pytest.approx({"a": 1.2, "b": 0.9})
    assert mean.scores == pytest.approx({"b": 0.9, "a": 0.4})
    assert (mean.confidence, mean.margin, mean.kept) == (0.25, -0.5, (3,))


@given(ANSWERS)
def test_equal_weights_are_a_majority(answers):
    """Catches: a weighted vote that is not the majority where all paths weigh the same."""
    plain, weighted = vote(answers), vote(answers, weights=[0.5] * len(answers))
    assert (plain.answer, plain.kept, plain.counts) == (weighted.answer, weighted.kept, weighted.counts)


def test_entropy_of_the_votes():
    """Catches: abstentions that count as an answer; bits taken for nats."""
    assert vote(["a", "b", None]).entropy == pytest.approx(math.log(2))
    assert vote(["a", "a"]).entropy == vote([None]).entropy == 0.0


@pytest.mark.parametrize(("first", "second"), [(4, 0), (6, 1), (8, 2), (9, 3), (11, 4), (12, 5), (14, 6)])
def test_beta_rule_stops_where_the_paper_does(first, second):
    """Catches: another prior, or a threshold that is off by a vote."""
    exact = scipy.stats.beta(first + 1, second + 1).sf(0.5)
    assert beta_confidence(first, second) == pytest.approx(exact)
    said = ["a"] * first + ["b"] * second + [None] * 3
    assert beta_decided(said) and not beta_decided(said[1:])


@pytest.mark.parametrize(("first", "second", "rest", "left"), [(3, 2, 1, 4), (5, 1, 0, 6), (1, 0, 0, 5), (2, 2, 3, 3)])
def test_forecast_is_that_of_drawing_from_an_urn(first, second, rest, left):
    """Catches: a forecast that is not the predictive distribution it says; ties counted as wins or not at all."""

    def overtaken(counts, left):
        if not left:
            return (counts[1] > counts[0]) + 0.5 * (counts[1] == counts[0])
        total = sum(counts) + 1.5
        more = [[c + (i == j) for j, c in enumerate(counts)] for i in range(3)]
        return sum((counts[i] + 0.5) / total * overtaken(more[i], left - 1) for i in range(3))

    assert adaptive._overtaken(first, second, rest, left) == pytest.approx(overtaken([first, second, rest], left))


def test_forecast_rule():
    """Catches: a rule that stops before anything was said, or goes on where nothing can change."""
    assert not forecast_decided([], 32) and not forecast_decided([None] * 10, 32)
    assert not forecast_decided(["a"], 32) and forecast_decided(["a"] * 5, 32)
    assert forecast_decided(["a", "b"] * 15 + ["a"], 32, 0.7) and not forecast_decided(["a", "b"] * 8, 32)
    assert forecast_decided(["a"] * 4 + ["b"] * 2, 7, 1.0)


def test_window_rule():
    """Catches: windows that overlap, unfinished windows, abstentions that agree."""
    assert not window_decided(["a"] * 4)
    assert window_decided(["a"] * 5)
    assert not window_decided(["b", "a", "a", "a", "a", "a"])
    assert window_decided(["b", "a", "a", "a", "a", "b", "b", "b", "b", "b"])
    assert not window_decided([None] * 5)


def test_paths_needed():
    """Catches: a floor or an end that is ignored."""
    assert paths_needed(["a"] * 32, beta_decided) == 4
    assert paths_needed(["a"] * 32, beta_decided, floor=8) == 8
    assert paths_needed(["a", "b"] * 16, beta_decided) is None
    assert paths_needed([], beta_decided) is None


def test_replay_of_stored_paths():
    """Catches: a saving counted in questions, an agreement that is always one."""
    stored = [["a"] * 8, ["a", "b"] * 4, ["b"] * 4 + ["a"] * 5]
    assert simulate_stopping(stored, beta_decided) == (pytest.approx((4 + 8 + 4) / 25), pytest.approx(2 / 3))
    assert simulate_stopping([], beta_decided) == (0.0, 0.0)
