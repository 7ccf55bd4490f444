"""lmsi_jax as a library: its examples, its imports, and what it refuses."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from etils import epath

import lmsi_jax as lmsi
from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.core.progress import console
from tests.runs import environment

QUESTIONS = [
    "Tom has 3 pens and Ann has 4 pens. How many pens do they have in all?",
    "A box has 5 nails and 8 nails. How many?",
]
FEW = {"sample.paths": 4, "sample.max_tokens": 48, "sample.lanes": 8, "sample.slots": 4}


@pytest.mark.slow
def test_the_examples_run(compile_cache):
    """Catches: an example in a docstring that says what the function does not do, and a public function without one."""
    run = "import doctest, lmsi_jax.library as m; print(doctest.testmod(m, optionflags=doctest.ELLIPSIS))"
    done = subprocess.run(
        [sys.executable, "-c", run], capture_output=True, text=True, env=environment(compile_cache), check=True
    )
    assert re.search(r"failed=0, attempted=2\d", done.stdout), done.stdout
    for name in lmsi.__all__:
        assert name == "UserError" or ">>>" in getattr(lmsi, name).__doc__, name


def test_importing_is_fast_and_needs_no_jax():
    """Catches: a notebook or a script that waits for an accelerator in order to read answers."""
    code = (
        "import time; start = time.perf_counter(); import lmsi_jax as lmsi; spent = time.perf_counter() - start; import sys;"
        "paths = [{'id': '1', 'path': 0, 'text': 'So. The answer is 7.'}]; lmsi.extract(['The answer is 7.']);"
        "assert lmsi.format(['What?'], paths, lmsi.vote(paths));"
        "print(spent, [name for name in ('jax', 'flax', 'scipy', 'matplotlib') if name in sys.modules], set(dir(lmsi)) >= "
        "set(lmsi.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    spent, rest = done.stdout.split(maxsplit=1)
    assert float(spent) < 0.25 and rest == "[] True\n"  # 10 ms on an idle machine
    with pytest.raises(AttributeError, match="no attribute 'votes'"):
        lmsi.votes  # noqa: B018


@pytest.mark.slow
def test_a_round_in_five_lines(checkpoint, tmp_path, capfd):
    """Catches: records that the next function refuses, a model that is not the trained one, output on the user's terminal."""
    model = lmsi.load(str(checkpoint))
    paths = lmsi.sample(model, QUESTIONS, FEW)
    assert [row["id"] for row in paths] == ["1"] * 4 + ["2"] * 4 and paths == lmsi.sample(model, QUESTIONS, FEW)
    assert lmsi.sample(model, QUESTIONS[1:], FEW)[0]["id"] == "1"  # ids are numbers of the questions given
    agreeing = [{**row, "text": f"{row['text']} The answer is 7."} for row in paths]
    rows = lmsi.format(QUESTIONS, agreeing, lmsi.vote(agreeing))
    few = {"finetune.steps": 2, "finetune.batch": 8, "finetune.row_length": 512, "finetune.warmup": 0}
    better = lmsi.finetune(model, rows, str(tmp_path / "better"), few)
    assert better.checkpoint == epath.Path(tmp_path / "better") and checkpoints.is_finetuned(str(better.checkpoint))
    asked = [{"question": text, "answer": answer} for text, answer in zip(QUESTIONS, ("7", "13"), strict=True)]
    before, after = (lmsi.evaluate(each, asked, FEW | {"evaluate.self_consistency": False}) for each in (model, better))
    assert [row.prompting for row in lmsi.compare(before, after)] == ["standard", "cot"]
    assert capfd.readouterr().out == "" and not console.quiet


def test_votes_by_valid_steps(checkpoint):
    """Catches: a vote by steps that silently counts all paths."""
    texts = ["3 + 4 = 8. The answer is 8."] * 2 + ["3 + 4 = 7. The answer is 7."]
    paths = [{"id": "1", "path": i, "text": text} for i, text in enumerate(texts)]
    first = {"select.vote": "valid_first", "select.checks": ("arithmetic",)}
    assert lmsi.vote(paths)[0]["answer"] == "8" and lmsi.vote(paths, QUESTIONS[:1], first)[0]["answer"] == "7"
    own = {"select.vote": "valid_first"}  # the contract of the generated problems is not that of one's own questions
    once = [{**row, "text": row["text"].replace("3 + 4", "3 + 2 + 2")} for row in paths]
    assert lmsi.vote(once, QUESTIONS[:1], own)[0]["checks"] == ["arithmetic", "answer"]
    with pytest.raises(lmsi.UserError, match="give the questions too"):
        lmsi.vote(paths, settings=first)


def test_scores_of_a_reward_model(checkpoint, tmp_path):
    """Catches: scores in another order than the paths."""
    model = lmsi.load(str(checkpoint))
    width = checkpoints.load_config(str(checkpoint)).width
    copied = shutil.copytree(checkpoint, tmp_path / "reward")
    head = {"head": [0.1] * width, "mean": 0.0, "deviation": 1.0, "wraps": True}
    (copied / checkpoints.REWARD_HEAD).write_text(json.dumps(head))
    paths = lmsi.sample(model, QUESTIONS, FEW)
    scores = lmsi.reward(lmsi.load(str(copied)), QUESTIONS, paths)
    backwards = lmsi.reward(lmsi.load(str(copied)), QUESTIONS, paths[::-1])
    assert len(scores) == 8 and len(set(scores)) > 1 and scores == pytest.approx(backwards[::-1], abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda model: lmsi.sample(model, QUESTIONS, {"sample.path": 3}), "nearest known key is 'sample.paths'"),
        (lambda model: lmsi.sample(model, QUESTIONS, {"mesh.fsdp": 2}), "mesh.fsdp belongs to a loaded model; give it to load"),
        (lambda model: lmsi.load("builtin", {"sample.paths": 3}), "sample.paths is not a setting of a model"),
        (lambda model: lmsi.sample(model, [" "], FEW), "no text in the field `question`"),
        (lambda model: lmsi.load("nowhere"), "nowhere is not a checkpoint folder"),
        (lambda model: lmsi.fit("chinchila", []), "chinchilla"),
        (lambda model: lmsi.finetune(model, [], "x", {"finetune.objective": "scpo"}), "trains on rows, not on pairs"),
    ],
)
def test_mistakes_are_named(wrong, problem, checkpoint):
    """Catches: a traceback from the depths, or a setting that is ignored."""
    with pytest.raises(lmsi.UserError, match=problem):
        wrong(lmsi.load(str(checkpoint)))
