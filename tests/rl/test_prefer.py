"""Preference pairs of a vote, and a model that learns from them."""

import json

import numpy as np
import pytest
from etils import epath

from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.decoding.score import score
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.recipes.config import Config, DistillConfig, MonitorConfig
from lmsi_jax.stages.pairs import PairsSettings, run_pairs
from lmsi_jax.stages.prefer import PreferSettings, run_prefer
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.task import load_task
from lmsi_jax.training.config import FinetuneConfig
from lmsi_jax.voting.config import SelectConfig
from tests.conftest import mesh_of
from tests.rl.loop import NUMERICS, PREFIX, runtime_of
from tests.stages.on_files import vote_file

ANSWERS = ["7", "8", "7", None, "9", "7", "8", "7"]


def make_pairs(folder, pairs=4, min_confidence=0.0, answers=ANSWERS):
    folder = epath.Path(folder)
    write_jsonl(folder / "q.jsonl", [{"id": "q", "question": "3 + 4?", "choices": None}])
    texts = ["I do not know." if answer is None else f"It is {answer}. The answer is {answer}." for answer in answers]
    common = {"id": "q", "num_tokens": 5, "logprob": -1.0, "finish": "stop", "prompt_hash": "h"}
    write_jsonl(folder / "p.jsonl", [{**common, "path": i, "text": f" {text}"} for i, text in enumerate(texts)])
    vote_file(folder / "p.jsonl", folder / "v.jsonl", load_task(DataConfig()), SelectConfig(), folder / "q.jsonl")
    inputs = {"questions": folder / "q.jsonl", "paths": folder / "p.jsonl", "votes": folder / "v.jsonl"}
    run_pairs(None, PairsSettings(0, Prompts(PREFIX, PREFIX), pairs, min_confidence), inputs, {"pairs": folder / "pairs.jsonl"})
    return list(read_jsonl(folder / "pairs.jsonl"))


def test_winners_are_paired_with_those_of_the_fewest_votes(tmp_path):
    """Catches: a pair of two winners, a margin that is not of its answers, one path in several pairs."""
    rows = make_pairs(tmp_path)
    assert len(rows) == 4 and len({row["paths"][0] for row in rows}) == 4 and len({row["paths"][1] for row in rows}) == 4
    for row in rows:
        winner, loser = row["paths"]
        assert ANSWERS[winner] == "7" and ANSWERS[loser] != "7"
        assert row["weight"] == (4 - (ANSWERS.count(ANSWERS[loser]) if ANSWERS[loser] else 0)) / 8
        assert row["chosen"] == " It is 7. The answer is 7." and row["prompt"].endswith("Q: 3 + 4?\nA:")
    assert [ANSWERS[row["paths"][1]] for row in rows[:2]] == [None, "9"]
    assert make_pairs(tmp_path) == rows and len(make_pairs(tmp_path, pairs=1)) == 1


def test_no_pair_is_an_error(tmp_path):
    """Catches: training on nothing, where all paths agree or the vote is too weak."""
    for changes in ({"min_confidence": 0.6}, {"answers": ["7"] * 4}):
        with pytest.raises(UserError, match="there is no pair to learn from"):
            make_pairs(tmp_path, **changes)


def test_a_model_learns_to_prefer_what_was_voted_for(checkpoint, tmp_path):
    """Catches: sides that are exchanged, a reference that moves, a log-probability of the prompt in the margin."""
    texts = [(f"{PREFIX}Q: {i} + 1?\nA:", f" It is {i + 1}.", f" Maybe {i}.") for i in range(12)]
    rows = [{"id": p, "prompt": p, "chosen": good, "rejected": bad, "weight": 0.5} for p, good, bad in texts]
    folder = epath.Path(tmp_path)
    write_jsonl(folder / "pairs.jsonl", rows)
    train = FinetuneConfig(
        steps=12, batch=4, row_length=64, learning_rate=5e-3, schedule="constant", warmup=0, objective="scpo", log_every=1
    )
    runtime = runtime_of(folder)
    inputs = {"pairs": folder / "pairs.jsonl", "model": epath.Path(checkpoint)}
    run_prefer(
        runtime, PreferSettings(0, "prefer 1", NUMERICS, train), inputs, {"trained": folder / "model"}, folder / "scratch"
    )
    metrics = [json.loads(line) for line in (folder / "metrics/rl.jsonl").read_text().splitlines()]
    assert abs(metrics[0]["margin"]) < 1e-4, "the first margin is that of the reference with itself"
    assert metrics[-1]["accuracy"] == 1 and metrics[-1]["margin"] > 0.5
    tokenizer, mesh = checkpoints.load_tokenizer(str(checkpoint)), mesh_of(1, 1, 1)
    margins = []
    for where in (checkpoint, folder / "model"):
        params, config = checkpoints.load_params(str(where), mesh), NUMERICS.of(checkpoints.load_config(str(where)))
        prompt = tokenizer.start(rows[3]["prompt"])
        sides = [[*prompt, *tokenizer.encode_completion(rows[3][name], prompt)] for name in ("chosen", "rejected")]
        sums = [float(each.logprobs[len(prompt) - 1 :].sum()) for each in score(mesh, config, params, sides, 2)]
        margins.append(sums[0] - sums[1])
    assert margins[1] > margins[0] + 0.5, margins
    assert np.isfinite(margins).all()


@pytest.mark.parametrize(
    ("root", "settings", "problem"),
    [
        (Config, ["finetune.objective=dpo"], "finetune.objective"),
        (Config, ["finetune.objective=scpo", "finetune.beta=0"], "finetune.beta"),
        (Config, ["finetune.objective=scpo", "more_tasks=('box_problems',)"], "pairs are of one task"),
        (MonitorConfig, ["finetune.objective=scpo"], "trains on paths, not on pairs"),
        (DistillConfig, ["finetune.objective=scpo"], "a student learns from paths of another model"),
    ],
)
def test_settings_that_do_not_fit_are_refused(root, settings, problem):
    """Catches: an objective that is ignored in silence."""
    with pytest.raises(UserError, match=problem):
        load_config(root, None, [f"--config.{setting}" for setting in ("data.num_questions=4", "data.num_eval=4", *settings)])
