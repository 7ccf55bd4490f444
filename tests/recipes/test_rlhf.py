"""The whole line from human rankings to a trained model, from the command line."""

import subprocess

import pytest

from lmsi_jax.checkpoint.folder import FINETUNED
from lmsi_jax.core.files import read_json
from lmsi_jax.core.records import read_jsonl, write_jsonl
from tests.runs import ROOT, command, environment

SMALL = {
    "data.num_questions": 8, "data.num_eval": 4, "sample.max_tokens": 24, "sample.lanes": 2, "sample.slots": 2,
    "finetune.steps": 2, "finetune.batch": 2, "finetune.row_length": 96, "finetune.warmup": 0, "reward.batch": 2,
    "reward_train.steps": 2, "reward_train.row_length": 96, "reward_train.warmup": 0, "rl.questions": 2, "rl.paths": 2,
    "train.steps": 2, "train.row_length": 96, "train.warmup": 0, "mesh.cpu_devices": 1,
}  # fmt: skip


def lmsi(cache, folder, rankings, **settings):
    arguments = command(
        "rlhf", f"--config={ROOT}/configs/tiny_rlhf.py", f"--workdir={folder}/run", f"--rankings={rankings}", **SMALL | settings
    )
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(cache), check=False)


@pytest.mark.slow
def test_from_rankings_to_a_policy_in_one_command(compile_cache, tmp_path):
    """Catches: a reward model or a policy that starts from another model, ties that are imitated, a row that is left out."""
    rows = [
        {
            "prompt": f"Tom has {n} coins and finds 2. How many?",
            "answers": [f" The answer is {n + 2}.", " 7", " 8"],
            "ranks": [1, 2, 2],
        }
        for n in range(8)
    ]
    pairs = [{"prompt": "How many?", "chosen": " 4 of them.", "rejected": " None."}]  # of TRL
    ties = [{"prompt": "Why?", "answers": [" So.", " Thus."], "ranks": [1, 1]}]
    write_jsonl(tmp_path / "rankings.jsonl", [*rows, *pairs, *ties])
    done = lmsi(compile_cache, tmp_path, tmp_path / "rankings.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    examples = list(read_jsonl(tmp_path / "run/chosen/examples.jsonl"))
    best = {row["prompt"]: row["answers"][0] for row in rows} | {"How many?": " 4 of them."}
    assert all(best[row["id"]] == row["target"] for row in examples), "no tie, no other answer"
    assert len(examples) in (7, 8), "one fifth of ten prompts is for the test of the reward model"
    assert examples[0]["prompt"].endswith(examples[0]["id"] + "\nA:") and len(examples[0]["prompt"]) > 300, "behind exemplars"
    for name, source in {"imitating": "builtin", "reward": "imitating", "rl": "imitating"}.items():
        assert read_json(tmp_path / f"run/models/{name}/{FINETUNED}")["base"].endswith(source), name
    rollouts = list(read_jsonl(tmp_path / "run/rollouts.jsonl"))
    assert {row["step"] for row in rollouts} == {1} and all(len(row["values"]) == row["num_tokens"] for row in rollouts)
    assert {"model", "kl"} == set(rollouts[0]["rewards"])
    page = (tmp_path / "run/report.html").read_text()
    assert "Human-feedback report" in page and "held-out pairs of answers as people do" in page


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"rl.rewards": "('vote',)"}, "lacks 'model', which this recipe trains"),
        ({"reward.prompt": "text"}, "rankings need it too"),
        ({"rl.reward_model": "builtin"}, "has no effect here, where the reward model is trained"),
        ({}, "rankings.jsonl line 2: a ranking of no known format"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(settings, problem, compile_cache, tmp_path):
    """Catches: a bad row that is noticed after the imitation, a reward model that is trained and not read."""
    good = {"prompt": "Why?", "answers": [" So.", " Thus."], "ranks": [1, 2]}
    write_jsonl(tmp_path / "rankings.jsonl", [good, {"likes": 3}])
    done = lmsi(compile_cache, tmp_path, tmp_path / "rankings.jsonl", **settings)
    assert done.returncode == 2 and problem in " ".join(done.stderr.split()), done.stderr
    assert not (tmp_path / "run/models").exists()
