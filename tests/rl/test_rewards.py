"""Rewards of groups of paths."""

import pytest
from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes.config import RlRunConfig
from lmsi_jax.recipes.rl import stages
from lmsi_jax.rl.metrics import group_metrics
from lmsi_jax.rl.rewards import Group, make

TEXTS = ("3 + 4 = 7. The answer is 7.", "3 + 4 = 8. The answer is 8.", "The answer is 7.", "I do not know.")


def group(answers=("7", "8", "7", None), accepted=("7",)):
    paths = [{"path": i, "text": text, "num_tokens": 10 + i, "finish": "stop"} for i, text in enumerate(TEXTS)]
    return Group({"id": "q", "question": "Tom has 3 cows and Ann has 4. How many?"}, paths, answers, 20, accepted)


def reward(name, checks=(), **changes):
    return list(make(name, AnswerReader("number"), 0, checks)(group(**changes)))


def test_built_in_rewards():
    """Catches: an abstention that wins, a tie that is decided by the order of paths, a number that is not of its path."""
    assert reward("gold") == [1, 0, 1, 0] and reward("gold", accepted=("7.0",)) == [1, 0, 1, 0]
    assert reward("vote") == [1, 0, 1, 0]
    assert reward("vote", answers=("7", "8", None, None)) == [0, 0, 0, 0]
    assert reward("vote", answers=(None,) * 4) == [0, 0, 0, 0]
    assert reward("valid_vote", checks=("arithmetic",)) == [1, 0, 1, 0]
    assert reward("valid_vote", checks=("arithmetic",), answers=("7", "8", "8", "8")) == [1, 0, 0, 0], "one valid path outvotes"
    assert reward("valid_vote", checks=("each_once",), answers=("9", "8", "8", None))[1:3] == [1, 1]
    assert reward("first_path") == [1, 0, 1, 0] and reward("first_path", answers=(None, None, "7", "7")) == [0, 0, 0, 0]
    assert reward("steps") == [1, 0, 0, 0]
    assert reward("length") == [-0.5, -0.55, -0.6, -0.65]
    assert reward("random") == reward("random") and set(reward("random")) <= {0.0, 1.0}


def test_probes_that_are_not_asked_need_no_paths():
    """Catches: a small group that is refused for a check that the run does not make."""
    assert load_config(RlRunConfig, "configs/tiny_rl.py", ["--config.rl.paths=4", "--config.rl.check_every=0"]).rl.paths == 4


def test_metrics_of_groups():
    """Catches: a share over paths in place of groups; a template answer for all questions that looks like agreement."""

    def rows(id, answers, totals):
        return [
            {"id": id, "answer": a, "score": r, "reward": r, "rewards": {"vote": r}, "num_tokens": 4, "finish": "stop"}
            for a, r in zip(answers, totals, strict=True)
        ]

    alike = group_metrics([rows("a", "77", (1, 1)), rows("b", "77", (1, 1))], ["vote"])
    assert alike["frac_reward_zero_std"] == 1 and alike["vote_share"] == 1 and alike["answers_across"] == 0.5
    unlike = group_metrics([rows("a", "73", (1.0, 0.0)), rows("b", ("5", None), (1.0, 0.0))], ["vote"])
    assert unlike["frac_reward_zero_std"] == 0 and unlike["answers"] == 1.5 and unlike["unread"] == 0.25
    assert unlike["reward"] == 0.5 and unlike["rewards/vote/mean"] == 0.5
    rounded = group_metrics([rows("a", "777777", (0.7,) * 6)], ["vote"])
    assert rounded["frac_reward_zero_std"] == 1, "although the mean of six times 0.7 is another number"


def test_rollouts_are_never_truncated(tmp_path):
    """Catches: log-probabilities within a nucleus, which those of the trained policy never equal; another temperature."""
    flags = ["sample.top_k=5", "sample.top_p=0.8", "rl.temperature=1.3"]
    config = load_config(RlRunConfig, "configs/tiny_rl.py", [f"--config.{flag}" for flag in flags])
    (stage,) = (stage for stage in stages(config, RunFolder(epath.Path(tmp_path))) if stage.name == "rl")
    sampling = stage.settings.sampling
    assert (sampling.top_k, sampling.top_p, sampling.temperature) == (0, 1.0, 1.3)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["rl.rewards=('votes',)"], "rl.rewards.*votes"),
        (["rl.reward_weights=(1.0,2.0)"], "2 numbers for 1 rewards"),
        (["rl.checks=('sums',)"], "rl.checks"),
        (["rl.rewards=('model',)"], "needs a checkpoint"),
        (["rl.paths=1"], "compares paths"),
        (["rl.vote_shares=(0.9,0.3)"], "must be a lower and an upper bound within 0..1"),
        (["rl.vote_shares=(0.3,0.9)", "rl.advantage=gae"], "leaves out groups"),
        (["rl.updates=3"], "does not divide into rl.updates=3"),
        (["rl.loss=reinforce", "rl.epochs=2"], "right only for paths of the present policy"),
        (["rl.beta=0.1", "rl.kl_estimator=k1"], "its expected gradient is 0"),
        (["rl.loss=gspo"], "hardly ever reach it"),
        (["rl.value.lam=1.0"], "rl.value has no effect with rl.advantage='dr_grpo'"),
        (["rl.rewards=('vote',)", "rl.checks=('arithmetic',)"], "without the reward 'valid_vote', which alone reads them"),
        (["rl.kl_where=reward", "rl.kl_estimator=k1"], "have no effect with rl.beta=0"),
        (["rl.epochs=3"], "train.steps=100 is not a multiple of the 3 steps"),
        (["train.row_length=100"], "a path may have sample.max_tokens=160 tokens"),
        (["finetune.batch=16"], "finetune.batch=16 has no effect in lmsi rl"),
        (["sample.engine=openai", "sample.endpoint.model=m"], "does not learn"),
        (["data.source=self"], "only `lmsi run`"),
        (["train.scan=True"], "stacked layers do not"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, problem):
    """Catches: a setting without an effect, a loss that is biased, a divergence that regularises nothing."""
    with pytest.raises(UserError, match=problem):
        load_config(RlRunConfig, "configs/tiny_rl.py", [f"--config.{setting}" for setting in settings])
