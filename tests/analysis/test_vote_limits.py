"""The limits of self-improvement on planted cases."""

import random

import numpy as np
import pytest

from lmsi_jax.analysis.kinds import weak_kinds
from lmsi_jax.analysis.limits.votes import consensus, diversity, knowledge, reinforced, state, vote_limits
from lmsi_jax.analysis.rounds import Round
from lmsi_jax.analysis.summary import Scores
from lmsi_jax.tasks.word_problems import make_problem


def scored(id, answers, gold="7"):
    counts = {answer: answers.count(answer) for answer in answers if answer is not None}
    top = max(counts, key=counts.__getitem__) if counts else None
    return {
        "id": id,
        "answers": answers,
        "right": [answer == gold for answer in answers],
        "prediction": top,
        "correct": top == gold,
        "confidence": counts.get(top, 0) / len(answers),
        "num_paths": len(answers),
    }


def test_one_wrong_answer_for_all_is_reinforced_and_without_diversity():
    """Catches: a collapse onto a wrong answer that a report shows as agreement."""
    rng = random.Random(0)
    before = [scored(str(i), ["3", "3", *map(str, rng.sample(range(20, 60), 6))]) for i in range(100)]
    after = [scored(str(i), ["3"] * 8) for i in range(100)]
    limit = reinforced(before, after)
    assert "in 100.0% [" in limit.sentence and limit.rows[2] == ("wrong before", "0", "0", "100")
    varied = diversity({"base": before, "round 1": after})
    assert varied.rows[1][2:4] == ("1.0", "0.00") and varied.rows[0][2] > "5"
    assert "own paths differ so in" in limit.sentence, "what chance alone gives"
    unchanged = reinforced(before, before)
    assert "in 0.0% [" in unchanged.sentence


def test_a_vote_is_right_wrong_or_undecided():
    """Catches: a tie that counts as a wrong label, or an abstention as a vote."""
    states = {state(scored("a", list(answers))) for answers in (("7", "7", "3"),)}
    assert states == {"right"} and state(scored("a", ["3", "3", "7"])) == "wrong"
    assert state(scored("a", ["7", "3"])) == state(scored("a", [None, None])) == "undecided"


def test_lost_coverage_warns():
    """Catches: paths that become alike while some questions lose their only right path."""
    before = [scored(str(i), ["7", "3", "3", "3"]) for i in range(200)]
    after = [scored(str(i), ["3"] * 4 if i % 5 == 0 else ["7", "3", "3", "3"]) for i in range(200)]
    assert diversity({"base": before, "round 1": after}).warns and not diversity({"base": before, "round 1": before}).warns


def test_what_consensus_contributes():
    """Catches: a gain that is attributed to the wrong vote shares, or training paths of questions that were left out."""
    votes = [{"id": f"t{i}", "confidence": 0.2 if i < 50 else 0.9} for i in range(100)]
    round = Round("rounds/1", votes, {}, [(f"t{i}", p) for i in range(50, 100) for p in range(4)], (), True)
    base = [scored(f"h{i}", ["7"] * 8 if i < 60 else ["7", "1", "2", "3", "4", "5", "6", "8"]) for i in range(100)]
    greedy = {
        "base": [{"id": f"h{i}", "correct": i < 60} for i in range(100)],
        "round-1": [{"id": f"h{i}", "correct": i < 70} for i in range(100)],
    }
    limit = consensus({"base": base, "round-1": base}, greedy, [round])
    low, *_, high = limit.rows
    assert low == ("0% to 25%", "50.0%", "0.0%", "40.0%", "0.0", "25.0", "+10.0")
    assert high == ("75% to 100%", "50.0%", "100.0%", "60.0%", "100.0", "100.0", "+0.0")
    assert "50.0% of those to train on and give 0.0% of the training paths" in limit.sentence


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("lacks", "word"),
    [(lambda p: any(t.subtracted for t in p.terms), "then"), (lambda p: any(t.factors for t in p.terms), "of")],
)
def test_a_kind_that_the_model_lacks_is_named(lacks, word, seed):
    """Catches: a gap that no aggregate shows; a kind that is named where there is none."""
    rng = np.random.default_rng(seed)
    problems = [make_problem(random.Random(f"{seed} {i}"), (2, 5), 99) for i in range(500)]
    texts = {str(i): problem.question for i, problem in enumerate(problems)}
    shares = {str(i): float(rng.beta(2, 20) if lacks(p) else rng.beta(3, 3)) for i, p in enumerate(problems)}
    kinds = weak_kinds(texts, shares)
    assert word in kinds[0].words and kinds[0].p_value < 1e-6
    gap = {str(i) for i, problem in enumerate(problems) if lacks(problem)}
    assert len(gap & kinds[0].ids) > 0.9 * len(kinds[0].ids)
    even = {id: float(rng.beta(3, 3)) for id in texts}
    assert weak_kinds(texts, even) == []


def test_a_gap_of_knowledge_is_a_warning_with_its_numbers():
    """Catches: a report that needs gold answers to see a gap, or that does not say how little of it is trained on."""
    texts = {f"t{i}": f"Tom has {i} nuts. {'Then 3 are lost.' if i % 5 == 0 else 'He is glad.'} How many?" for i in range(100)}
    votes = [
        {"id": id, "confidence": 0.06 if "lost" in text else 0.5 + 0.001 * i} for i, (id, text) in enumerate(texts.items())
    ]
    trained = [(id, 0) for id, text in texts.items() if "lost" not in text]
    round = Round("rounds/1", votes, {}, trained, (), True)
    (limit,) = knowledge({}, [round], texts, {})
    assert limit.warns and "20.0% of the questions to train on and 0.0% of the training paths" in limit.sentence
    assert "“are”" in limit.rows[0][0] or "“lost”" in limit.rows[0][0] or "“then”" in limit.rows[0][0]
    (calm,) = knowledge({}, [Round("rounds/1", [{**v, "confidence": 0.5} for v in votes], {}, trained, (), True)], texts, {})
    assert not calm.warns and "none tells a kind" in calm.sentence


def test_a_run_without_scores_or_votes_has_no_limits():
    """Catches: a report of an unfinished run that fails."""
    assert vote_limits(Scores([], {}), [], {}, {}) == []
