"""What the report shows of reinforcement learning."""

import json

from etils import epath

from lmsi_jax.analysis.report import write_report
from lmsi_jax.analysis.rollouts import read_course
from lmsi_jax.analysis.rounds import Gold
from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.files import write_text
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.core.settings import to_dict
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes.config import RewardRunConfig, RlRunConfig

NO_GOLD = Gold({}, AnswerReader("number"))


def make_run(path, alarm="", winner=None):
    folder = RunFolder(epath.Path(path))
    common = {"vote_share": 0.4, "frac_reward_zero_std": 0.25, "answers": 3.0, "completions/mean_length": 9}
    batches = [{**common, "step": step, "reward": step / 20} for step in range(1, 21)]
    steps = [{"step": step, "entropy": 0.5, "ratio": 1.0, "loss": 0.0, "probe/twin_agreement": 0.6} for step in (10, 20)]
    for part, rows in (("rollouts", batches), ("", steps)):
        file = folder.stage_metrics("rl", part)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = {"id": "q1", "path": 0, "text": "<b>3 + 4 = 7</b>", "answer": None, "rewards": {"vote": 1.0}, "advantage": 0.5}
    row["reward"] = 0.0  # without a score
    paths = [{**row, "step": 1}, {**row, "step": 20}]
    if winner:  # of three paths with the reward of a vote
        paths += [
            {**row, "step": 20, "path": i, "answer": answer, "score": float(answer == winner), "reward": 0.0}
            for i, answer in enumerate((winner, winner, "7"), start=1)
        ]
    write_jsonl(folder.rollouts, paths)
    write_text(folder.guard, json.dumps({"alarm": alarm, "step": 20, "kept": 10}))
    write_text(folder.config, json.dumps(to_dict(RlRunConfig())))
    write_text(folder.history, json.dumps({"recipe": "rl", "stages": ["rl"]}))
    write_jsonl(folder.questions, [{"id": "q1", "question": "How many?", "choices": None}])
    return folder


def test_the_course_says_what_the_metrics_say(tmp_path):
    """Catches: means of the wrong batches, a curve that is left out, an alarm that nobody sees."""
    course = read_course(make_run(tmp_path), {"q1": "How many?"}, NO_GOLD)
    assert "reward 0.28 → 0.78" in course.sentences[0] and "In 25% of the groups all rewards were equal" in course.sentences[0]
    assert course.sampled["reward"][-1] == (20, 0.775) and course.probed["twins agree"] == [(10, 0.6), (20, 0.6)]
    assert not course.warns and "saw no collapse" in course.sentences[-1]
    assert [title for title, _ in course.groups] == ["step 1: How many?", "step 20: How many?"]
    assert not course.audited
    assert read_course(RunFolder(epath.Path(tmp_path / "none")), {}, NO_GOLD) is None


def test_gold_answers_audit_what_was_rewarded(tmp_path):
    """Catches: a vote that is judged by its share, and rewards that are called right because they are high."""
    gold = Gold({"q1": ["7"]}, AnswerReader("number"))
    wrong = read_course(make_run(tmp_path / "wrong", winner="8"), {"q1": "How many?"}, gold)
    assert wrong.audited["paths"] == [(1, 0.0), (20, 0.125)] and wrong.audited["votes"][-1] == (20, 0.0)
    assert wrong.audited["rewarded paths"] == [(20, 0.0)]
    right = read_course(make_run(tmp_path / "right", winner="7"), {"q1": "How many?"}, gold)
    assert right.audited["rewarded paths"] == [(20, 1.0)] and right.audited["votes"][-1] == (20, 0.5)
    assert any("Audit, right by the gold answers" in sentence for sentence in right.sentences)


def test_an_alarm_is_on_the_page(tmp_path):
    """Catches: text of a model that is taken for HTML, and a collapse that the report does not show."""
    folder = make_run(tmp_path, alarm="The vote share rose to 0.97.")
    page = write_report(folder.root).read_text()
    assert "kept the state of step 10. The vote share rose to 0.97." in page and "Reinforcement-learning report" in page
    assert "<b>3 + 4" not in page and "&lt;b&gt;3 + 4" in page
    assert "The guard ended the run after step 20" in folder.card.read_text()


def test_a_reward_model_is_judged_on_its_page(tmp_path):
    """Catches: a page of a reward model that says nothing of its quality, or hides that it likes long answers."""
    folder = RunFolder(epath.Path(tmp_path))
    write_text(folder.config, json.dumps(to_dict(RewardRunConfig())))
    write_text(folder.history, json.dumps({"recipe": "reward", "stages": ["reward"]}))
    found = {
        "pairs": 200, "accuracy": 0.685, "nll": 0.54, "calibration_error": 0.07, "length_correlation": 0.6, "shorter": 0.28,
        "annotators_agree": 0.8,
    }  # fmt: skip
    write_text(folder.quality, json.dumps(found))
    page = write_report(folder.root).read_text()
    assert "orders 68.5% of 200 held-out pairs" in page and "by +0.60. Where people prefer the shorter answer" in page
    assert "Annotators agree on 80.0%" in page and "Reward-model report" in page
