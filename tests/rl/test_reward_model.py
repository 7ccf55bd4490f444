"""A reward model on rankings of a small random model: it learns, reads scores at their positions, and rewards paths."""

import random
import re

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lmsi_jax.checkpoint.folder import check_target, load_tokenizer
from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_json
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.model import transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes.config import RewardRunConfig
from lmsi_jax.recipes.reward import OF_RANKINGS, stages
from lmsi_jax.rl.config import RewardConfig
from lmsi_jax.rl.rankings import Ranking
from lmsi_jax.rl.reward_model import Answers, quality
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages.reward import (
    RewardSettings,
    TextScorer,
    check_lengths,
    load_scorer,
    run_reward,
    score_file,
    score_items,
    split,
    tokens_of,
)
from lmsi_jax.training.config import UpdateConfig
from tests.rl.loop import NUMERICS, RL, TRAIN, other, run, runtime_of, settings

TUNE = UpdateConfig(
    steps=30, row_length=96, learning_rate=0.01, schedule="constant", warmup=0, weight_decay=0.0, save_every=30, log_every=10
)


def rankings(folder, count=60, seed=0):
    """Answers of words with more or fewer e; people prefer more of them, and ties are ties."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        answers = [" ".join(rng.choice(("eve", "cow", "see", "ham")) for _ in range(4)) for _ in range(3)]
        ranks = [1 + sum(o.count("e") > a.count("e") for o in answers) for a in answers]
        rows.append(
            {"prompt": f"How many cows has Tom on day {number}?", "answers": answers, "ranks": ranks, "annotator": "ann"}
        )
    file = epath.Path(folder) / "rankings.jsonl"
    write_jsonl(file, rows)
    return file


@pytest.fixture(scope="module")
def trained(checkpoint, tmp_path_factory):
    """A folder with a reward model, and its quality."""
    folder = epath.Path(tmp_path_factory.mktemp("reward"))
    wanted = RewardSettings(0, NUMERICS, Prompts("", ""), RewardConfig("r.jsonl", batch=8), TUNE)
    inputs = {"rankings": rankings(folder), "model": epath.Path(checkpoint)}
    outputs = {"trained": folder / "model", "quality": folder / "quality.json"}
    run_reward(runtime_of(folder), wanted, inputs, outputs, folder / "scratch")
    return folder


def test_a_reward_model_learns_what_people_prefer(trained):
    """Catches: a score at the wrong position, ties that count as wins, a test on prompts that were trained on."""
    found = read_json(trained / "quality.json")
    assert found["accuracy"] > 0.8 and found["nll"] < 0.6 and found["held_out_rankings"] == 12 and found["rankings"] == 60
    assert 0 <= found["calibration_error"] < 0.35 and found["annotators_agree"] is None
    scorer = TextScorer(runtime_of(trained), trained / "model", NUMERICS, Prompts("", ""))
    (values,) = scorer.score([("How many cows has Tom?", None, ["eve see eve see", "ham cow ham cow"])])
    assert values[0] > values[1] + 0.5
    check_target(trained / "model")  # may be written again, by a run that was killed after it wrote it


def test_the_score_of_an_answer_does_not_depend_on_what_is_beside_it(trained):
    """Catches: a position that is found by a token id, padding that is attended to, an answer that sees another one."""
    runtime = runtime_of(trained)
    model, scorer, head = load_scorer(runtime, trained / "model", NUMERICS)
    encode = model.tokenizer.encode
    prompts = [model.tokenizer.start(text) for text in ("How many?", "A long question about cows and hens. How many?")]
    answers = [encode(text) for text in ("eve", "cow see ham eve", "see")]
    items = [Answers(prompt, answers, [1, 2, 2]) for prompt in prompts]
    together = score_items(runtime.mesh, model.config, scorer, items, 96)
    for prompt, found in zip(prompts, together, strict=True):
        for answer, score in zip(answers, found, strict=True):
            (alone,) = score_items(runtime.mesh, model.config, scorer, [Answers(prompt, [answer], [0])], 64)
            np.testing.assert_allclose(alone, [score], atol=1e-5)
    turned = score_items(runtime.mesh, model.config, scorer, [Answers(prompts[0], answers[::-1], [1, 2, 2])], 96)
    np.testing.assert_allclose(turned[0][::-1], together[0], atol=1e-5)
    assert head.deviation > 0 and len(head.head) == model.config.width


def test_scores_are_read_at_the_last_token_whatever_its_id(trained):
    """Catches: a position that is found by the id of an end or of padding, and an end that is left out."""
    runtime = runtime_of(trained)
    model, scorer, head = load_scorer(runtime, trained / "model", NUMERICS)
    encode, eos = model.tokenizer.encode, model.tokenizer.eos
    wanted = RewardSettings(0, NUMERICS, Prompts("", ""), RewardConfig("r"), TUNE)
    item = tokens_of(Ranking("How many?", ("eve see", "ham"), (1, 2)), wanted, model.tokenizer)
    answers = [*item.answers, [0, *encode("eve"), 0], [eos, *encode("ham"), eos, eos], [eos]]
    assert all(answer[-1] == eos for answer in item.answers)
    (found,) = score_items(runtime.mesh, model.config, scorer, [Answers(item.prompt, answers, [0] * len(answers))], 64)
    with use_mesh(runtime.mesh):
        for answer, score in zip(answers, found, strict=True):
            ids = jnp.asarray([[*item.prompt, *answer]], jnp.int32)
            states, _ = transformer.hidden(model.config, model.params, ids, *causal(*ids.shape))
            np.testing.assert_allclose(score, scorer.read(states)[0, -1], atol=1e-4)
    texts = TextScorer(runtime, trained / "model", NUMERICS, Prompts("", ""))
    (of_texts,) = texts.score([("How many?", None, ["eve see", "ham"])])
    np.testing.assert_allclose(of_texts, (found[:2] - head.mean) / head.deviation, atol=1e-4)


def test_paths_are_scored_from_a_file(trained, tmp_path):
    """Catches: scores of another row, and a path whose question is not there."""
    write_jsonl(tmp_path / "q.jsonl", [{"id": "q", "question": "How many cows has Tom?", "choices": None}])
    rows = [{"id": "q", "path": i, "text": text} for i, text in enumerate(("ham cow ham", "eve see eve"))]
    write_jsonl(tmp_path / "p.jsonl", rows)
    scorer = TextScorer(runtime_of(trained), trained / "model", NUMERICS, Prompts("", ""))
    files = [epath.Path(tmp_path / f"{name}.jsonl") for name in ("p", "q", "out")]
    score_file(*files, scorer)
    found = list(read_jsonl(tmp_path / "out.jsonl"))
    assert [{k: v for k, v in row.items() if k != "score"} for row in found] == rows
    assert found[1]["score"] > found[0]["score"]
    write_jsonl(tmp_path / "p.jsonl", [{"id": "other", "path": 0, "text": "x"}])
    with pytest.raises(UserError, match="the question 'other', which is not in"):
        score_file(*files, scorer)


def test_a_policy_learns_what_the_reward_model_likes(trained, checkpoint, tmp_path):
    """Catches: the score of another path, and a reward model that is not read."""
    rl = other(RL, rewards=("model",))
    done = run(tmp_path, checkpoint, settings(rl, other(TRAIN, steps=8)), reward_model=trained / "model")
    by_step = {}
    for row in read_jsonl(done / "rollouts.jsonl"):
        assert row["reward"] == row["rewards"]["model"]
        by_step.setdefault(row["step"], []).append(row["reward"])
    means = [float(np.mean(by_step[step])) for step in sorted(by_step)]
    assert np.mean(means[-2:]) > np.mean(means[:2]) + 0.2, means
    with pytest.raises(UserError, match="is not a reward model: it has no reward_head.json"):
        run(tmp_path / "none", checkpoint, settings(rl), reward_model=checkpoint)


def test_quality_is_over_pairs():
    """Catches: ties that count, a calibration that is over-confident and not seen, a length bias that is hidden."""
    scores, ranks, lengths = [[2.0, 1.0, 0.0], [0.0, 1.0]], [[1, 2, 2], [1, 2]], [[5, 3, 1], [1, 9]]
    found = quality(scores, ranks, lengths)
    assert found.pairs == 3 and found.accuracy == pytest.approx(2 / 3) and found.shorter == 0
    assert found.length_correlation > 0.4
    sure = quality([[9.0, 0.0]] * 10 + [[0.0, 9.0]] * 10, [[1, 2]] * 20, [[1, 1]] * 20)
    assert sure.accuracy == 0.5 and sure.calibration_error == pytest.approx(0.5, abs=0.01) and sure.length_correlation == 0
    with pytest.raises(UserError, match="No held-out pair"):
        quality([[1.0, 2.0]], [[1, 1]], [[1, 1]])


def test_rankings_that_cannot_be_split_or_packed_are_refused(checkpoint, tmp_path):
    """Catches: a test on nothing, and an answer that is cut off in silence."""
    one = [Ranking("p", ("a", "b"), (1, 2))] * 5
    with pytest.raises(UserError, match="of 1 different prompts leaves"):
        split(one, 0.2, 0)
    kept, tested = split([Ranking(f"p{i}", ("a", "b"), (1, 2)) for i in range(10)] * 2, 0.2, 0)
    assert len(tested) == 4 and not {r.prompt for r in kept} & {r.prompt for r in tested}
    wanted = RewardSettings(0, NUMERICS, Prompts("", ""), RewardConfig("r"), other(TUNE, row_length=8))
    inputs = {"rankings": rankings(tmp_path), "model": epath.Path(checkpoint)}
    with pytest.raises(UserError, match=r"Ranking 1 of \d+, .* has 3 answers of \d+ tokens .* row_length=8"):
        run_reward(runtime_of(tmp_path), wanted, inputs, {"trained": epath.Path(tmp_path / "m")}, epath.Path(tmp_path / "s"))


@pytest.mark.parametrize(("words", "problem"), [(5, ""), (250, "row_length=256; raise it"), (1500, "row_length=256; raise it")])
def test_answers_that_no_row_holds_are_named_before_anything_is_trained(tmp_path, words, problem):
    """Catches: the one long answer of a file that ends `lmsi rlhf` after its fine-tuning, an hour in."""
    pairs = [{"prompt": f"Who came at {i}?", "chosen": "Tom.", "rejected": "Ann."} for i in range(8)]
    write_jsonl(tmp_path / "r.jsonl", [*pairs, {"prompt": "And then?", "chosen": "No.", "rejected": "Ann " * words}])
    config = load_config(
        RewardRunConfig,
        "configs/tiny_reward.py",
        [f"--config.reward.rankings={tmp_path}/r.jsonl", "--config.train.row_length=256"],
    )
    if problem:
        with pytest.raises(UserError, match=f"Ranking 9 of 9, whose prompt begins with 'And then.', .*{problem}"):
            OF_RANKINGS.run(config, runtime_of(tmp_path))
    else:
        assert re.search(r"9 rankings .* take at most \d+ tokens", OF_RANKINGS.run(config, runtime_of(tmp_path)))


def test_a_prompt_longer_than_the_context_is_named():
    """Catches: a prompt of which the model sees a part."""
    texts = RewardSettings(0, NUMERICS, Prompts("", ""), RewardConfig("r", prompt="text"), TUNE)
    with pytest.raises(UserError, match=r"has \d+ tokens with its longest answer; the model's context has 16"):
        check_lengths([Ranking("cow " * 30, ("a", "b"), (1, 2))], texts, load_tokenizer("builtin"), 16)


@pytest.mark.parametrize(("file", "problem"), [("", "no rankings to learn from"), ("none.jsonl", "none.jsonl does not exist")])
def test_rankings_that_are_not_there_are_asked_for(tmp_path, file, problem):
    """Catches: an error about the current directory where a flag was forgotten."""
    config = load_config(RewardRunConfig, "configs/tiny_reward.py", [f"--config.reward.rankings={file}"] if file else [])
    for look in (lambda: stages(config, RunFolder(epath.Path("runs"))), lambda: OF_RANKINGS.run(config, runtime_of(tmp_path))):
        with pytest.raises(UserError, match=problem):
            look()
