"""One model that is trained on several tasks."""

import dataclasses
import subprocess
from collections import Counter

import pytest
from etils import epath

from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_json
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.self_improve import stages
from tests.runs import ROOT, environment, run_workdir

TASKS = ("list_problems", "story_problems", "box_problems")


def config(*settings):
    return load_config(Config, str(ROOT / "configs/tiny.py"), [f"--config.{setting}" for setting in settings])


@pytest.mark.slow
def test_one_model_learns_two_tasks(compile_cache, tmp_path):
    """Catches: a task whose rows are left out, questions of one task among those of another, a report for one only."""
    settings = {"data.task": "story_problems", "more_tasks": "('box_problems',)", "evaluate.self_consistency": False}
    done = subprocess.run(
        run_workdir(tmp_path / "run", **settings), capture_output=True, text=True, env=environment(compile_cache), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "run"
    below = run / "tasks/box_problems"
    own = {name: list(read_jsonl(root / "rounds/1/examples.jsonl")) for name, root in (("story", run), ("box", below))}
    mixture = list(read_jsonl(run / "rounds/1/mixture.jsonl"))
    assert Counter(row["task"] for row in mixture) == {"story_problems": len(own["story"]), "box_problems": len(own["box"])}
    assert len({row["id"] for row in mixture}) > max(len({row["id"] for row in rows}) for rows in own.values())
    assert "rounds/1/mixture.jsonl" in read_json(run / "manifests/rounds-1-finetune.json")["inputs"]
    for root, word in ((run, "now"), (below, "of")):
        questions = [row["question"] for row in read_jsonl(root / "questions.jsonl")]
        assert all(word in question for question in questions)
        assert {row["id"] for row in read_jsonl(root / "eval/round-1/cot.jsonl")} == {
            row["id"] for row in read_jsonl(root / "held_out.jsonl")
        }
        page = (root / "report.html").read_text()
        assert "CoT greedy" in page and "Label precision" in page and page.count("<h3>Reliance on consensus</h3>") == 1
    assert "tasks/box_problems/report.html" in (run / "report.html").read_text()


def test_which_task_is_the_main_one_does_not_change_what_is_trained_on(tmp_path):
    """Catches: a study that trains the same model several times, since the rows are in another order."""
    mixes = []
    for task in TASKS:
        others = tuple(name for name in TASKS if name != task)
        made = stages(config(f"data.task={task}", f"more_tasks={others}"), RunFolder(epath.Path(tmp_path / task)))
        names = [stage.name for stage in made]
        assert len(set(names)) == len(names)
        (mix,) = [stage for stage in made if stage.short_name == "mix"]
        mixes.append((mix.settings, list(mix.inputs)))
        outputs = [path for stage in made for path in stage.outputs.values()]
        assert len(set(outputs)) == len(outputs), "no stage writes over another"
        transfers = [stage.name for stage in made if stage.short_name == "texts"]
        assert transfers == ["transfer/base/texts", "transfer/round-1/texts"]
    assert mixes[0] == mixes[1] == mixes[2]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["more_tasks=('word_problems',)"], "'word_problems', which the run trains on already"),
        (["more_tasks=('box_problems','box_problems')"], "'box_problems', which the run trains on already"),
        (["more_tasks=('gsm8k',)"], "source=files or tfds"),
        (["more_tasks=('jsonl',)"], "source=files or tfds"),
        (["more_tasks=('sums',)"], "no data.task 'sums'"),
    ],
)
def test_tasks_that_cannot_be_trained_on_are_refused(settings, problem, tmp_path):
    """Catches: a task that is trained on twice, or questions of one task under the name of another."""
    with pytest.raises(UserError, match=problem):
        stages(config(*settings), RunFolder(epath.Path(tmp_path)))


def test_questions_of_its_own_are_of_one_task():
    """Catches: questions that the model wrote for one task among those of another."""
    with pytest.raises(UserError, match="only one task can have such"):
        config("more_tasks=('box_problems',)", "data.source=self")
    assert dataclasses.replace(config(), more_tasks=("box_problems",)).more_tasks == ("box_problems",)
