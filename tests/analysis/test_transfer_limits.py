"""The limits of prompts, generalisation, forgetting and cost on planted cases."""

import random

import pytest
from etils import epath

from lmsi_jax.analysis.limits.cost import cost
from lmsi_jax.analysis.limits.transfer import forgetting, prompts, tasks, transfer_limits
from lmsi_jax.analysis.summary import Score
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder

OTHERS = ("exemplars in reverse order", "zero-shot", "other words")


def sides(before, after, n=100, seed=0):
    """Right answers of two models, with these shares of right ones."""
    rng = random.Random(seed)
    return tuple({str(i): rng.random() < share for i in range(n)} for share in (before, after))


def test_a_model_fitted_to_one_prompt_shows_it():
    """Catches: a gain that is reported without saying that another wording loses it."""
    fitted = {"given": sides(0.3, 1.0)} | {name: sides(0.3, 0.3, seed=i) for i, name in enumerate(OTHERS)}
    limit = prompts(fitted)
    assert limit.warns and "With 3 other prompts for the same 100 questions" in limit.sentence
    assert [row[0] for row in limit.rows] == ["the prompt of training", *OTHERS] and limit.rows[0][3] == "100.0%"
    assert [name for name, _, _ in limit.drawn] == ["given", *OTHERS]
    general = {name: sides(0.3, 0.8) for name in ("given", *OTHERS)}
    assert not prompts(general).warns and "a difference of -" in prompts(general).sentence


def test_one_model_has_a_spread_and_no_gain():
    """Catches: a gain of 0 that is told of a model that was not trained."""
    right = sides(0.4, 0.4)[0]
    alone = {"given": (right, right), "zero-shot": (right, right)}
    assert "gain" not in prompts(alone).sentence and "with the prompt of the run it is" in prompts(alone).sentence
    assert "change" not in tasks({"longer_word_problems": (right, right)}).sentence


def test_a_task_that_falls_is_marked():
    """Catches: a loss on another task that the report shows as noise, and noise that it shows as a loss."""
    limit = tasks({"longer_word_problems": sides(0.6, 0.2), "other_word_problems": sides(0.5, 0.5)})
    assert limit.warns and "longer word problems from" in limit.sentence
    assert not tasks({"other_word_problems": sides(0.5, 0.5)}).warns


def test_forgetting_is_told_from_noise():
    """Catches: a rise of the loss without an interval, or one that ignores that both models read the same texts."""
    rng = random.Random(0)
    before = [{"model": "base", "loss": rng.uniform(0.4, 1.2) * n, "tokens": n} for n in (200, 300, 500) * 10]
    worse = [{**row, "model": "round-1", "loss": row["loss"] + 0.02 * row["tokens"]} for row in before]
    noisy = [{**row, "model": "round-1", "loss": row["loss"] + rng.gauss(0, 0.05) * row["tokens"]} for row in before]
    assert forgetting([before, worse]).warns
    assert "(a change of +0.020 to +0.020)" in forgetting([before, worse]).sentence
    assert not forgetting([before, noisy]).warns and not forgetting([before]).warns


def test_the_limits_are_read_from_a_run(tmp_path):
    """Catches: records that are written and not shown, or the last model's rows taken for the first one's."""
    folder = RunFolder(epath.Path(tmp_path))
    for model, right in (("base", False), ("round-1", True)):
        common = {"kind": "prompt", "correct": right}
        rows = [{"id": str(i), "name": name, **common} for i in range(20) for name in ("given", "zero-shot")]
        rows += [{"id": "0", "name": "longer_word_problems", "kind": "task", "correct": not right}]
        write_jsonl(folder.transfer(model), rows)
        write_jsonl(folder.text_loss(model), [{"model": model, "loss": 4.0, "tokens": 2}])
    found = transfer_limits(folder, ["base", "round-1"])
    assert [limit.title for limit in found] == ["Dependence on the prompt", "Generalisation to other tasks", "Forgetting"]
    assert found[0].rows[1][:4] == ("zero-shot", "20", "0.0%", "100.0%") and found[1].rows[0][2:4] == ("100.0%", "0.0%")
    assert transfer_limits(RunFolder(epath.Path(tmp_path / "none")), ["base"]) == []


def test_cost_is_counted_by_stage_and_point():
    """Catches: a point whose cost contains the evaluation, stages that several devices ran counted once, reused work."""
    stages = {
        "rounds/1/sample": (36.0, 1e6, 2e12),
        "rounds/1/finetune": (72.0, 5e5, 3e12),
        "eval/base/evaluate": (360.0, 4e6, 8e12),
    }
    manifests = [
        {"stage": name, "seconds": seconds, "devices": 4, "work": {"tokens": tokens, "operations": operations}}
        for name, (seconds, tokens, operations) in stages.items()
    ]
    manifests.append({"stage": "prepare", "seconds": 3.0, "devices": 0, "work": {}})
    manifests.append({"stage": "rounds/1/steps", "seconds": 0.0, "reused": True})
    score = Score(
        prompting="cot", model="round-1", place=1, paths=1, n=100, accuracy=0.6, low=0.5, high=0.7, gain=0.2, p_value=0.01,
        unparsed=0.0, truncated=0.0,
    )  # fmt: skip
    limit = cost(manifests, [score], {"plan": {"watts": 500.0, "price": 2.0}})
    rows = {row[0]: row[1:] for row in limit.rows}
    assert rows["method"] == ("1,500,000", "5.00e+12", "0.12", "0.06", "0.24")
    assert rows["all stages"] == ("5,500,000", "1.30e+13", "0.52", "0.26", "1.04")
    assert "prepare" not in rows and "1 stages were taken from the store" in limit.sentence
    assert "For each of the 20.0 points that greedy CoT gained, the method used 0.006 device hours" in limit.sentence
    assert "2.5e+11 operations" in limit.sentence
    assert cost([], [], {}) is None and "--config.plan.watts" in cost(manifests, [], {}).sentence


@pytest.mark.parametrize("kind", [prompts, tasks])
def test_nothing_measured_is_no_limit(kind):
    """Catches: a page that breaks without these records."""
    assert kind({}) is None
