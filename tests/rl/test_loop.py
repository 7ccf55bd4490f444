"""The loop of reinforcement learning: it learns, it is exact, and it says when nothing was learnt."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lmsi_jax.answers.reader import AnswerReader, Answers
from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.decoding.score import score
from lmsi_jax.rl.advantages import ESTIMATORS
from lmsi_jax.rl.config import GAE, Clip, ValueConfig
from lmsi_jax.rl.losses import LOSSES
from lmsi_jax.rl.metrics import vote_shares
from lmsi_jax.sharding.rules import use_mesh
from tests.conftest import initial, mesh_of
from tests.rl.loop import NUMERICS, RL, TRAIN, other, questions, run, runtime_of, settings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, model_config, tokenizer):
    """A checkpoint folder of a random model of one layer, which compiles in half the time."""
    path, shallow = tmp_path_factory.mktemp("checkpoint") / "model", other(model_config, layers=1)
    with use_mesh(mesh_of(1, 1, 1)):
        checkpoints.save(path, shallow, initial(shallow, 1), {"tokenizer.model": tokenizer.model})
    return path


def rewards(folder):
    """The mean reward of each batch of rollouts."""
    by_step = {}
    for row in read_jsonl(folder / "rollouts.jsonl"):
        by_step.setdefault(row["step"], []).append(row["reward"])
    return [float(np.mean(by_step[step])) for step in sorted(by_step)]


def weights(folder):
    return jax.tree.leaves(checkpoints.load_params(str(folder / "model"), mesh_of(1, 1, 1)))


def metrics(folder, name="rl"):
    rows = [json.loads(line) for line in (folder / f"metrics/{name}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


@pytest.mark.parametrize(
    ("advantage", "loss"),
    [*((name, "ppo") for name in (*ESTIMATORS, GAE)), *(("dr_grpo", name) for name in LOSSES if name != "ppo")],
)
def test_every_estimator_learns(advantage, loss, checkpoint, tmp_path):
    """Catches: a sign, a shift by one token or a mask that leaves all curves healthy and teaches nothing; 3 of 3 seeds."""
    clip = Clip(3e-4, 4e-4) if loss == "gspo" else Clip()
    aggregate = "sequence" if loss == "gspo" else "token"
    rl = other(RL, advantage=advantage, loss=loss, clip=clip, aggregate=aggregate)
    for seed in range(3):
        done = run(tmp_path / str(seed), checkpoint, settings(rl, other(TRAIN, steps=10, save_every=10), seed))
        found = rewards(done)
        assert np.mean(found[-2:]) > np.mean(found[:2]) + 0.1, found


def test_an_inverted_reward_unlearns(checkpoint, tmp_path):
    """Catches: rewards that are ignored, in a model that drifts the right way by itself."""
    rl = other(RL, reward_weights=(-1.0,))
    found = rewards(run(tmp_path, checkpoint, settings(rl, other(TRAIN, steps=12))))
    assert np.mean(found[-3:]) >= np.mean(found[:3]), "the reward is minus the share"
    shares = [-value for value in found]
    assert np.mean(shares[-3:]) < 0.5 * np.mean(shares[:3])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_sampled_and_trained_logprobs_are_equal(temperature, checkpoint, tmp_path):
    """Catches: log-probabilities at another temperature, of shifted tokens, or behind another prompt: the first ratio is 1."""
    rl = other(RL, temperature=temperature, beta=0.1)
    done = run(tmp_path, checkpoint, settings(rl, other(TRAIN, steps=1)))
    (row,) = metrics(done)
    assert abs(row["ratio"] - 1) < 1e-4 and abs(row["approx_kl"]) < 1e-5 and abs(row["kl"]) < 1e-5 and row["clip_ratio"] == 0


def test_the_divergence_holds_the_model(checkpoint, tmp_path):
    """Catches: a coefficient without an effect, in the loss or in the reward."""
    in_reward = {"beta": 1.0, "kl_where": "reward", "kl_estimator": "k1"}
    found = {}
    for name, changes in {"none": {"beta": 1e-9}, "loss": {"beta": 1.0}, "reward": in_reward}.items():
        done = run(tmp_path / name, checkpoint, settings(other(RL, **changes), other(TRAIN, steps=7)))
        last = [row for row in read_jsonl(done / "rollouts.jsonl") if row["step"] == 7]
        found[name] = float(np.mean([row["rewards"]["tests.rl.loop.letters"] for row in last]))
        penalties = [row["rewards"].get("kl", 0.0) for row in last]
        assert all(
            row["reward"] == row["rewards"]["tests.rl.loop.letters"] + kl for row, kl in zip(last, penalties, strict=True)
        )
        assert any(penalties) == (name == "reward")
    assert found["loss"] < found["none"] and found["reward"] < found["none"], found


def test_penalties_are_differences_of_logprobs(checkpoint, tmp_path):
    """Catches: k2 or k3 in the reward, a reference that moves, a penalty of the wrong sign."""
    rl = other(RL, beta=0.1, kl_where="reward", kl_estimator="k1")
    done = run(tmp_path, checkpoint, settings(rl, other(TRAIN, steps=3)))
    rows = [row for row in read_jsonl(done / "rollouts.jsonl") if row["step"] == 3]
    mesh, tokenizer = mesh_of(1, 1, 1), checkpoints.load_tokenizer(str(checkpoint))
    initial, config = checkpoints.load_params(str(checkpoint), mesh), NUMERICS.of(checkpoints.load_config(str(checkpoint)))
    prompts, asked = settings().prompts, {row["id"]: row["question"] for row in read_jsonl(questions(tmp_path))}
    before = [[*tokenizer.start(prompts.cot_examples), *tokenizer.encode(prompts.question(asked[row["id"]]))] for row in rows]
    scored = score(mesh, config, initial, [[*start, *row["tokens"]] for start, row in zip(before, rows, strict=True)], 8)
    for row, start, each in zip(rows, before, scored, strict=True):
        np.testing.assert_allclose(row["kl"], row["logprobs"] - each.logprobs[len(start) - 1 :], atol=1e-4)
    assert min(min(row["kl"]) for row in rows) < -0.1


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_values_of_states_begin_at_zero_and_learn(beta, checkpoint, tmp_path):
    """Catches: a head that changes the policy, values of a shifted token, a score at padding, a divergence counted twice."""
    value = ValueConfig(coefficient=1.0, clip=0.0, lam=1.0)
    rl = other(RL, advantage=GAE, rewards=("tests.rl.loop.cows",), beta=beta, kl_where="reward", kl_estimator="k1", value=value)
    done = run(tmp_path, checkpoint, settings(rl, other(TRAIN, steps=12, learning_rate=0.005)))
    plain = run(tmp_path / "plain", checkpoint, settings(RL, other(TRAIN, steps=1)))
    rows, first = list(read_jsonl(done / "rollouts.jsonl")), metrics(done)[0]
    texts = [(row["id"], row["text"]) for row in rows if row["step"] == 1]
    assert texts == [(row["id"], row["text"]) for row in read_jsonl(plain / "rollouts.jsonl")]
    assert abs(first["ratio"] - 1) < 1e-4 and not any(any(row["values"]) for row in rows if row["step"] == 1)
    for row in rows:
        score = row["rewards"]["tests.rl.loop.cows"]
        after = beta * np.cumsum([0.0, *row.get("kl", [0.0] * len(row["values"]))])[:-1]
        np.testing.assert_allclose(row["returns"], row["reward"] + after, atol=2e-5)
        assert row["reward"] == pytest.approx(score + beta * row["rewards"].get("kl", 0.0))
    assert metrics(done, "rl-rollouts")[0]["explained_variance"] == 0
    last = [row for row in rows if row["step"] > 10]
    found, wanted = (float(np.mean(np.concatenate([row[name] for row in last]))) for name in ("values", "returns"))
    assert abs(found - wanted) < 0.4 * abs(wanted)


def test_values_are_read_before_each_token(checkpoint, tmp_path, monkeypatch):
    """Catches: values of the states after their tokens, or of another path in the row, or masked by the id of an end."""
    from lmsi_jax.decoding.scheduler import Engine
    from lmsi_jax.model import transformer
    from lmsi_jax.model.attention import causal
    from lmsi_jax.pipeline.runtime import Model
    from lmsi_jax.rl.head import ModelWithHead
    from lmsi_jax.stages.rollouts import Rollouts

    wanted, runtime, mesh = settings(other(RL, advantage=GAE)), runtime_of(tmp_path), mesh_of(1, 1, 1)
    loaded: Model = runtime.load(str(checkpoint), wanted.numerics)
    scorer = ModelWithHead(loaded.params, jnp.linspace(-1.0, 1.0, loaded.config.width))
    sample, around = Engine.sample, lambda tokens: (0, *tokens[1:-1], loaded.tokenizer.eos)[-len(tokens) :]

    def ended(*arguments):
        return [[other(path, tokens=around(path.tokens)) for path in group] for group in sample(*arguments)]

    monkeypatch.setattr(Engine, "sample", ended)
    with use_mesh(mesh):
        rollouts = Rollouts(runtime, wanted, TRAIN, questions(tmp_path), {}, loaded, epath.Path(tmp_path / "rollouts"))
        batch = rollouts(1, lambda: scorer)
        rows = list(read_jsonl(tmp_path / "rollouts/000000.jsonl"))
        prompt = {row["id"]: wanted.prompts.question(row["question"]) for row in read_jsonl(questions(tmp_path))}
        for row in rows[::5]:
            before = [*loaded.tokenizer.start(wanted.prompts.cot_examples), *loaded.tokenizer.encode(prompt[row["id"]])]
            tokens = jnp.asarray([[*before, *row["tokens"]]], jnp.int32)
            states, _ = transformer.hidden(loaded.config, loaded.params, tokens, *causal(*tokens.shape))
            expected = scorer.read(states)[0, len(before) - 1 : -1]
            np.testing.assert_allclose(row["values"], expected, atol=2e-4)
    assert batch.rows["old_values"].any()


def test_adapters_with_a_head_are_saved_without_it(checkpoint, tmp_path):
    """Catches: a head of values that ends among the adapters of a checkpoint, which cannot be exported then."""
    from lmsi_jax.model.config import LoraConfig

    train = other(TRAIN, steps=2, lora=LoraConfig(rank=2))
    plain, headed = (run(tmp_path / name, checkpoint, settings(other(RL, advantage=name), train)) for name in ("rloo", GAE))
    trees = [(done / "model/adapters/_METADATA").read_text() for done in (plain, headed)]
    assert trees[0] == trees[1]


class Killed(BaseException):
    """A kill in the middle of a run."""


@pytest.mark.parametrize(("updates", "advantage"), [(1, "dr_grpo"), (2, "dr_grpo"), (2, GAE)])
def test_a_run_that_is_killed_ends_with_the_same_bytes(updates, advantage, checkpoint, tmp_path, monkeypatch):
    """Catches: rollouts that are drawn again after an update, a lost optimiser state, metrics that are written twice."""
    from lmsi_jax.stages import rollouts

    rl, train = other(RL, updates=updates, epochs=2, advantage=advantage), other(TRAIN, steps=4 * updates, save_every=3)
    whole = run(tmp_path / "whole", checkpoint, settings(rl, train))
    calls, place_of = [], rollouts.Rollouts.__call__

    def killed(self, step, model):
        calls.append(step)
        batch = place_of(self, step, model)
        if len(calls) in (2, 6, 10):
            raise Killed
        return batch

    monkeypatch.setattr(rollouts.Rollouts, "__call__", killed)
    for _ in range(9):
        try:
            cut = run(tmp_path / "cut", checkpoint, settings(rl, train))
            break
        except Killed:
            continue
    assert calls[:7] == [1, 2, 1, 2, 3, 4, 4], "it was killed, and went on from a saved state among the steps of its rollouts"
    assert (cut / "rollouts.jsonl").read_bytes() == (whole / "rollouts.jsonl").read_bytes()
    assert all((a == b).all() for a, b in zip(weights(cut), weights(whole), strict=True))
    assert metrics(cut) == metrics(whole) and metrics(cut, "rl-rollouts") == metrics(whole, "rl-rollouts")


def test_the_same_seed_gives_the_same_bytes_and_another_mesh_the_same_text(checkpoint, tmp_path):
    """Catches: a draw that depends on the number of devices or on the time."""
    once = run(tmp_path / "once", checkpoint, settings())
    again = run(tmp_path / "again", checkpoint, settings())
    assert (once / "rollouts.jsonl").read_bytes() == (again / "rollouts.jsonl").read_bytes()
    assert all((a == b).all() for a, b in zip(weights(once), weights(again), strict=True))
    first = [(row["id"], row["path"], row["text"]) for row in read_jsonl(once / "rollouts.jsonl")]
    for mesh in ((2, 2, 2),):
        other_mesh = run(tmp_path / str(mesh), checkpoint, settings(), mesh)
        assert [(row["id"], row["path"], row["text"]) for row in read_jsonl(other_mesh / "rollouts.jsonl")] == first
        for a, b in zip(weights(once), weights(other_mesh), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)
    another = run(tmp_path / "another", checkpoint, settings(seed=1))
    assert (another / "rollouts.jsonl").read_bytes() != (once / "rollouts.jsonl").read_bytes()


def test_the_update_does_not_depend_on_microbatches(checkpoint, tmp_path):
    """Catches: a loss that is normalised in each microbatch, so that short paths of one count more than those of another."""
    found = []
    for parts in (1, 4):
        done = run(tmp_path / str(parts), checkpoint, settings(RL, other(TRAIN, steps=1, accumulate=parts)))
        found.append((metrics(done)[0], weights(done)))
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)  # Adam divides by the size of a gradient, also of a tiny one


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_each_token_counts_as_it_was_asked_for(how, checkpoint, tmp_path):
    """Catches: an aggregation that is not read, another length than the limit, means of microbatches, an end without loss."""
    from lmsi_jax.stages.rollouts import Rollouts

    wanted, train, limit = settings(other(RL, aggregate=how)), other(TRAIN, accumulate=4), 100
    wanted = other(wanted, sampling=other(wanted.sampling, max_tokens=limit, stops=("a", "e", "o", "t")))
    runtime, mesh = runtime_of(tmp_path), mesh_of(1, 1, 1)
    loaded = runtime.load(str(checkpoint), wanted.numerics)
    with use_mesh(mesh):
        rollouts = Rollouts(runtime, wanted, train, questions(tmp_path), {}, loaded, epath.Path(tmp_path / "rollouts"))
        batch = rollouts(1, lambda: loaded.params)
    lengths = [row["num_tokens"] for row in read_jsonl(tmp_path / "rollouts/000000.jsonl")]
    assert len(set(lengths)) > 1 and max(lengths) < limit
    mean = sum(lengths) / len(lengths)
    expected = {"token": [1.0] * sum(lengths), "sequence": [mean / n for n in lengths for _ in range(n)]}
    expected["constant"] = [mean / limit] * sum(lengths)
    found = batch.rows["weights"]
    np.testing.assert_allclose(sorted(found[found > 0]), sorted(expected[how]), rtol=1e-6)


def test_adapters_learn_and_leave_the_weights_alone(checkpoint, tmp_path):
    """Catches: adapters that are sampled without, so that the policy that is trained is not the one that sampled."""
    from lmsi_jax.model.config import LoraConfig

    train = other(TRAIN, steps=12, learning_rate=0.05, lora=LoraConfig(rank=4))
    done = run(tmp_path, checkpoint, settings(RL, train))
    found, ratios = rewards(done), [row["ratio"] for row in metrics(done)]
    assert np.mean(found[-2:]) > np.mean(found[:2]) + 0.05, found
    assert max(abs(ratio - 1) for ratio in ratios) < 1e-3, ratios


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_dynamic_sampling_replaces_groups_of_equal_rewards(beta, checkpoint, tmp_path):
    """Catches: updates on groups that teach nothing, where others could be drawn; a divergence that hides which these are."""
    rl = other(RL, questions=2, paths=2, rewards=("random",), beta=beta, kl_where="reward", kl_estimator="k1")
    plain = run(tmp_path / "plain", checkpoint, settings(rl))
    drawn = run(tmp_path / "drawn", checkpoint, settings(other(rl, redraws=3)))

    def groups(folder):
        found = {}
        for row in read_jsonl(folder / "rollouts.jsonl"):
            found.setdefault((row["step"], row["id"]), []).append(row["rewards"]["random"])
        return found

    equal = [sum(len(set(each)) == 1 for each in groups(folder).values()) for folder in (plain, drawn)]
    assert equal[1] < equal[0]
    assert len(groups(drawn)) == len(groups(plain)) == 2 * TRAIN.steps


class Parity(AnswerReader):
    """Whether a text has an even number of characters is its answer."""

    def read(self, rows, choices):
        return Answers([str(len(row["text"]) % 2) for row in rows], {})


def test_groups_whose_vote_is_too_sure_or_too_weak_can_be_left_out(checkpoint, tmp_path):
    """Catches: a range without an effect, and one that leaves out the groups within it."""
    bounds = (0.3, 0.7)
    wanted = settings(other(RL, vote_shares=bounds))
    done = run(tmp_path, checkpoint, other(wanted, reader=Parity("text")))
    groups = {}
    for row in read_jsonl(done / "rollouts.jsonl"):
        groups.setdefault((row["step"], row["id"]), []).append(row)
    trained = {key: any(row["advantage"] for row in group) for key, group in groups.items()}
    within = {key: bounds[0] <= vote_shares([group])[0] <= bounds[1] for key, group in groups.items()}
    varied = {key: len({row["score"] for row in group}) > 1 for key, group in groups.items()}
    assert trained == {key: within[key] and varied[key] for key in groups}
    assert any(varied[key] and not within[key] for key in groups) and any(trained.values())


def sometimes(question, path):
    """For every second question a number whose mean over six paths is another one in float64, by rounding."""
    return 0.7 if question["id"] in ("q0", "q2", "q4", "q6") else path["path"] % 2


def test_equal_fractions_are_replaced_too(checkpoint, tmp_path):
    """Catches: a deviation of equal fractions that rounding raises above 0, so that they seem to differ."""
    rl = other(RL, paths=6, rewards=("tests.rl.test_loop.sometimes",), redraws=3)
    done = run(tmp_path, checkpoint, settings(rl, other(TRAIN, steps=2)))
    assert {row["id"] for row in read_jsonl(done / "rollouts.jsonl")} == {"q1", "q3", "q5", "q7"}


@pytest.mark.parametrize("stop", ["\n\n", "e"])
def test_paths_that_are_cut_off_can_be_left_out(stop, checkpoint, tmp_path):
    """Catches: a mask that has no effect or masks the end of a path; a batch whose paths are all left out, divided by zero."""
    wanted = settings(other(RL, rewards=("random",), truncated="left_out"), seed=1, max_tokens=3)
    done = run(tmp_path, checkpoint, other(wanted, sampling=other(wanted.sampling, stops=(stop,))))
    cut = [row["finish"] == "length" for row in read_jsonl(done / "rollouts.jsonl")]
    assert np.mean(cut) > 0.5 and all(np.isfinite(row["loss"]) for row in metrics(done))
    targets = metrics(done)[0]["targets"]
    first = [row for row in read_jsonl(done / "rollouts.jsonl") if row["step"] == 1]
    assert targets == sum(row["num_tokens"] for row in first if row["finish"] != "length")
    assert (targets > 0) == (stop == "e")


def always(question, path):
    return 0.7


PENALISED = {"beta": 0.1, "kl_where": "reward", "kl_estimator": "k1"}


@pytest.mark.parametrize(
    ("reward", "changes"),
    [("gold", {}), ("tests.rl.test_loop.always", {}), ("tests.rl.test_loop.always", PENALISED), ("gold", {"advantage": GAE})],
)
def test_a_run_that_learns_nothing_says_so(reward, changes, checkpoint, tmp_path):
    """Catches: a success that is reported although all rewards were equal, since a penalty or values differ."""
    gold = _gold(tmp_path, "no answer is this") if reward == "gold" else None
    with pytest.raises(UserError, match="Nothing was learnt: in each of 4 batches"):
        run(tmp_path, checkpoint, settings(other(RL, paths=6, rewards=(reward,), **changes)), gold=gold)


def _gold(folder, answer):
    file = epath.Path(folder) / "gold.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(file, [{"id": f"q{i}", "answer": answer, "answers": [answer]} for i in range(8)])
    return file


def failing(question, path):
    raise KeyError("no such field")


def not_a_number(question, path):
    return float("nan")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tests.rl.test_loop.failing", "of path 0 of question 'q.' failed: KeyError"),
        ("tests.rl.test_loop.not_a_number", "is nan; a reward must be a finite number"),
        ("tests.rl.test_loop.missing", "cannot be imported: AttributeError"),
        ("gold", "needs an answer for each question, and 8 of 8 have none, such as 'q0'"),
    ],
)
def test_a_reward_that_fails_is_named(name, problem, checkpoint, tmp_path):
    """Catches: a NaN that reaches the weights, and an exception without the path that caused it."""
    with pytest.raises(UserError, match=problem):
        run(tmp_path, checkpoint, settings(other(RL, rewards=(name,))))
    assert not (tmp_path / "model").exists()


def test_too_few_questions_are_refused(checkpoint, tmp_path):
    """Catches: a batch that asks one question several times."""
    questions(tmp_path, count=3)
    with pytest.raises(UserError, match="rl.questions=4, and there are 3 questions"):
        run(tmp_path, checkpoint, settings())


def test_gold_is_not_read_by_a_vote(checkpoint, tmp_path):
    """Catches: a label-free reward that looks at the answers after all."""
    rl = other(RL, rewards=("vote", "length"), reward_weights=(1.0, 0.1))
    found = [
        run(tmp_path / name, checkpoint, settings(rl), gold=gold)
        for name, gold in (("none", None), ("scrambled", _gold(tmp_path, "17")))
    ]
    assert (found[0] / "rollouts.jsonl").read_bytes() == (found[1] / "rollouts.jsonl").read_bytes()
    assert jnp.isfinite(sum(jnp.sum(leaf) for leaf in weights(found[0])))
