"""Signals of collapse and the guard on planted histories."""

import random
import re

import jax
import numpy as np
import pytest

from lmsi_jax.checkpoint.folder import load_params
from lmsi_jax.core.files import read_json
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.rl.signals import alarm, best_check, counterpart, signals, twin
from lmsi_jax.tasks.word_problems import NAMES, make_problem
from lmsi_jax.tasks.word_reading import read_problem
from tests.conftest import mesh_of
from tests.rl.loop import RL, TRAIN, other, run, settings


def test_a_twin_has_other_names_and_the_same_answer():
    """Catches: a twin that is another question, two people who get one name, a name within a word."""
    rng = random.Random(0)
    for _ in range(200):
        problem = make_problem(rng, (2, 5), 50)
        other_words = twin(problem.question, "0")
        assert read_problem(other_words).answer == problem.answer, other_words
        names = [name for name in NAMES if name in problem.question.replace(".", " ").split()]
        if names:
            assert other_words != problem.question
    assert twin("Tommy has 3 cows.", "0") == "Tommy has 3 cows."
    assert twin("Tom meets Ann and Tom.", "1") == twin("Tom meets Ann and Tom.", "1")


def test_a_counterpart_has_another_answer():
    """Catches: a counterpart that is the same question, a number of other length or a part of one, an answer that stays."""
    rng, read = random.Random(0), 0
    for _ in range(200):
        problem = make_problem(rng, (2, 5), 199)
        changed = counterpart(problem.question, "0")
        assert changed != problem.question and len(changed) == len(problem.question)
        other_problem = read_problem(changed)  # None where more is given away than there is
        read += other_problem is not None
        assert other_problem is None or other_problem.answer != problem.answer, changed
    assert read > 150
    assert counterpart("Who is it?", "0") == "Who is it?"
    assert re.fullmatch(r"About 3.25 and [2-9] and 1,000\.", counterpart("About 3.25 and 7 and 1,000.", "0"))
    assert counterpart("He has 7 of 9.", "1") == counterpart("He has 7 of 9.", "1")


def test_answers_by_the_kind_of_question_are_no_agreement():
    """Catches: a model that answers by a few words of the question, whose twins agree and which ignores the numbers."""
    by_kind = [[str(i % 5)] * 4 for i in range(20)]
    found = signals(by_kind, by_kind, by_kind)
    assert found["twins_alike"] == found["counterparts_alike"] == 1 and found["twin_agreement"] == 0
    assert signals(by_kind, by_kind, [])["twin_agreement"] == 1, "only counterparts can tell"
    others = [[str(100 + i)] * 4 for i in range(20)]
    assert signals(by_kind, by_kind, others)["twin_agreement"] == 1
    history = [check(0.4, 0.5), *[check(0.9, 0.02, alike=0.95)] * 3]
    assert "agreement with reworded twins fell from 0.50 to 0.02" in alarm(history, probes=64) and best_check(history) == 0


def test_signals_tell_agreement_from_a_template():
    """Catches: one answer for all questions that looks like perfect agreement of twins."""
    right = [[str(i)] * 4 for i in range(20)]
    healthy = signals(right, right, [], before=[str(i) for i in range(20)])
    assert healthy["twin_agreement"] == 1 and healthy["answers_across"] == 1 and healthy["flips"] == 0
    template = signals([["7"] * 4] * 20, [["7"] * 4] * 20, [], before=[str(i) for i in range(20)])
    assert template["twin_agreement"] == 0 and template["vote_share"] == 1 and template["answers_across"] == 0.05
    assert template["flips"] == 0.95
    unread = signals([[None] * 4] * 5, [["1"] * 4] * 5, [["2"] * 4] * 5)
    assert unread["unread"] == 1 and unread["twin_agreement"] == 0 and "flips" not in unread


def check(share, agreement, across=0.9, alike=0.0):
    both = {"twins_alike": agreement + (alike or 0.1), "counterparts_alike": alike or 0.1}
    return {"vote_share": share, "twin_agreement": agreement, "answers_across": across, **both}


def test_the_guard_sees_a_collapse_and_no_other():
    """Catches: an alarm on noise or on a healthy rise, and a collapse that goes unseen."""
    rising = [check(0.5 + 0.05 * i, 0.5 + 0.04 * i) for i in range(8)]
    assert all(alarm(rising[:n], probes=64) == "" for n in range(9))
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):  # a model that does not change, by 64 probes a check
        alike = rng.binomial(64, (0.6, 0.1), (12, 2)) / 64
        noisy = [check(0.6 + 0.03 * rng.normal(), a - b, rng.binomial(64, 0.85) / 64, b) for a, b in alike]
        alarms += any(alarm(noisy[:n], probes=64) for n in range(13))
    assert alarms <= 0.03 * 300
    wording = [*rising[:4], check(0.8, 0.35), check(0.85, 0.3), check(0.9, 0.25)]
    assert "agreement with reworded twins fell from 0.62 to 0.25, while the vote share went from 0.65 to 0.90" in alarm(
        wording, probes=64
    )
    assert alarm(wording[:-1], probes=64) == "", "two checks are not enough"
    template = [*rising[:4], check(0.8, 0.6, 0.3), check(0.9, 0.6, 0.1), check(0.95, 0.6, 0.1)]
    assert "different answers across questions fell from 0.90 to 0.10" in alarm(template, probes=64)
    less_sure = [*rising[:4], check(0.6, 0.3), check(0.55, 0.2), check(0.5, 0.2)]
    assert "went from 0.65 to 0.50" in alarm(less_sure, probes=64), (
        "a model that contradicts itself is no better for being unsure"
    )
    few_answers = [*rising[:4], *[check(0.4, 0.6, 0.3)] * 3]
    assert alarm(few_answers, probes=64) == "", "few answers of an unsure model"


def test_a_run_measures_its_signals_and_keeps_the_best_state(checkpoint, tmp_path, monkeypatch):
    """Catches: a guard that reads other metrics than those that are measured, or returns the state that collapsed."""
    from lmsi_jax.stages import probes

    rl = other(RL, check_every=2, probes=4, probe_paths=4)
    whole = run(tmp_path / "whole", checkpoint, settings(rl, other(TRAIN, steps=6)))
    assert read_json(whole / "guard.json") == {"alarm": "", "step": 6, "kept": 6, "guarded": True}
    monkeypatch.setattr(probes, "alarm", lambda history, n: "It collapsed." if len(history) > 2 else "")
    ended = run(tmp_path / "ended", checkpoint, settings(rl, other(TRAIN, steps=6)))
    verdict = read_json(ended / "guard.json")
    assert verdict["alarm"] == "It collapsed." and verdict["step"] == 4 and verdict["kept"] in (0, 2, 4)
    assert max(row["step"] for row in read_jsonl(ended / "rollouts.jsonl")) == 4
    assert not (tmp_path / "gold").exists()


def test_the_model_before_training_is_kept_if_it_was_the_best(checkpoint, tmp_path, monkeypatch):
    """Catches: a guard that must return one of the collapsed states, since nobody saved the first one."""
    from lmsi_jax.stages import probes

    agreement = iter((0.9, 0.1, 0.05))
    measured = lambda *_: {**check(0.5, next(agreement)), "answers": 1.0, "unread": 0.0}  # noqa: E731
    monkeypatch.setattr(probes, "signals", measured)
    monkeypatch.setattr(probes, "alarm", lambda history, n: "It collapsed." if len(history) > 2 else "")
    ended = run(tmp_path, checkpoint, settings(other(RL, check_every=2, probes=4, probe_paths=4), other(TRAIN, steps=6)))
    assert read_json(ended / "guard.json") == {"alarm": "It collapsed.", "step": 4, "kept": 0, "guarded": True}
    before, after = (load_params(str(path), mesh_of(1, 1, 1)) for path in (checkpoint, ended / "model"))
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize("setting", [{"probe_paths": 9}, {"probes": 0}])
def test_probes_that_cannot_be_sampled_are_refused(setting):
    """Catches: a check that asks for more paths than decoding is compiled for."""
    from lmsi_jax.core.errors import UserError

    with pytest.raises(UserError, match=next(iter(setting))):
        other(RL, check_every=2, **setting).check("rl.")
