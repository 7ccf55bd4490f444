import dataclasses
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from lmsi_jax.checkpoint.state import StateCheckpoints
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import CHIPS, peak_operations
from lmsi_jax.formatting.packing import Piece, pack
from lmsi_jax.model import layers
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages.finetune import work
from lmsi_jax.training import step as steps
from lmsi_jax.training.batches import batch_rows, check_batch
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.objective import Batch, causal_mask, cross_entropy, place_prompts
from lmsi_jax.training.trainable import AllWeights
from tests.conftest import MESHES, forward, mesh_of, place
from tests.training import fine_tuning
from tests.training.fine_tuning import abstract_state, batch_loss, gradients, init_state, make_step, place_batch, train

CONFIG = TrainConfig(steps=6, batch=8, row_length=48, learning_rate=1e-2, warmup=1, save_every=2, log_every=1)


def pieces(count=40, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 30, count)
    return [Piece(rng.integers(4, 400, n).tolist(), int(rng.integers(1, n - 1))) for n in lengths]


def plain_batch(rows):
    return {name: jnp.asarray(array) for name, array in rows.take(np.arange(len(rows))).items()}


def largest_relative_error(got, expected):
    errors = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))), got, expected)
    return max(jax.tree.leaves(errors))


def test_packed_loss_and_gradient_equal_the_sum_over_single_rows(model_config, params):
    """Catches: a piece that sees its neighbour, restarts at the wrong position, or loses a target."""
    some = pieces(7)
    packed = plain_batch(pack(some, 48))
    assert packed["segments"].max() > 1
    single = [plain_batch(pack([piece], 48)) for piece in some]
    total = jax.jit(jax.value_and_grad(lambda p, b: batch_loss(model_config, p, b).total))
    with use_mesh(mesh_of(1, 1, 1)):
        loss, grad = total(params, packed)
        parts = [total(params, batch) for batch in single]
    assert float(loss) == pytest.approx(sum(float(part) for part, _ in parts), rel=1e-5)
    summed = jax.tree.map(lambda *leaves: sum(leaves), *[part for _, part in parts])
    assert largest_relative_error(grad, summed) < 1e-4


def mixture(count=12, seed=3):
    """Rows of two few-shot formats, of long prompts, and of zero-shot ones, with weights of their own."""
    rng = np.random.default_rng(seed)
    prompts = {"few_shot_cot": rng.integers(4, 400, 40).tolist(), "few_shot_direct": rng.integers(4, 400, 21).tolist()}
    found = []
    for i in range(count):
        group = ["few_shot_cot", "zero_shot_cot", "few_shot_direct", "zero_shot_direct"][i % 4]
        question, target = rng.integers(4, 400, rng.integers(3, 8)).tolist(), rng.integers(4, 400, 6).tolist()
        tokens = [*prompts.get(group, []), *question, *target]
        found.append(Piece(tokens, len(tokens) - 6, group, float(rng.uniform(0.5, 2))))
    return found


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
def test_shared_prompts_give_the_gradient_of_whole_rows(shape, model_config, params):
    """Catches: gradients that stop at the shared keys, prompts mixed up, positions from zero, a zero-shot row that sees one."""
    some = mixture()
    shared, whole = pack(some, 40, share=True), pack(some, 64)
    assert len(shared.prompts) == 2 and len(set(shared.prompt)) == 3
    mesh = mesh_of(*shape)
    order = np.arange(-(-len(shared) // 4) * 4) % len(shared)  # a multiple of the devices; what is there twice counts once
    rows = {**shared.take(order)}
    rows["weights"] = rows["weights"] * (np.arange(len(order)) < len(shared))[:, None]
    total = jax.jit(jax.value_and_grad(lambda p, b, prompts: batch_loss(model_config, p, b, prompts).total))
    with use_mesh(mesh):
        loss, grad = total(place(mesh, model_config, params), place_batch(mesh, rows), place_prompts(mesh, shared.prompts))
    with use_mesh(mesh_of(1, 1, 1)):
        expected_loss, expected = total(params, plain_batch(whole), None)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    worst = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))), jax.device_get(grad), expected)
    assert max(jax.tree.leaves(worst)) < 1e-5


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("remat", ["scores", "dots", "full"])
def test_what_is_computed_again_is_the_same(remat, shape, model_config, params, monkeypatch):
    """Catches: a layer that is computed again with other inputs; shared prompts that are not; queries with another mask."""
    rows, mesh = pack(mixture(), 40, share=True), mesh_of(*shape)
    monkeypatch.setattr(layers, "SCORES", 2**10)  # less than those of a row
    with use_mesh(mesh):
        prompts, batch = place_prompts(mesh, rows.prompts), place_batch(mesh, rows.take(np.arange(8) % len(rows)))
        total = lambda p, how: batch_loss(model_config, p, batch, prompts, how).total  # noqa: E731
        run, placed = jax.jit(jax.value_and_grad(total), static_argnums=1), place(mesh, model_config, params)
        kept, again = run(placed, "none"), run(placed, remat)
    assert float(again[0]) == pytest.approx(float(kept[0]), rel=1e-6)
    assert largest_relative_error(again[1], kept[1]) < 1e-5


def test_which_products_are_computed_again(model_config, params):
    """Catches: recomputation that does not see the products with weights, so that "dots" stores nothing of a layer either."""
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        batch = place_batch(mesh, pack(pieces(), 48).take(np.arange(2)))
        loss = lambda p, how: batch_loss(model_config, p, batch, None, how).total  # noqa: E731
        program = jax.make_jaxpr(jax.grad(loss), static_argnums=1)
        kept, dots, full = (str(program(params, how)).count("dot_general[") for how in ("none", "dots", "full"))
    assert dots - kept == 2 * model_config.layers, (kept, dots)  # the two products of attention
    assert full - dots >= 6 * model_config.layers, (dots, full)  # of the seven products with weights the last need not be


def test_only_targets_carry_loss(model_config, params):
    """Catches: loss on the prompt or on padding."""
    some = [Piece([1, 9, 9, 9, 7, 8, 2], 4)]
    other = [Piece([1, 9, 9, 9, 7, 8, 2], 5)]
    with use_mesh(mesh_of(1, 1, 1)):
        loss = batch_loss(model_config, params, plain_batch(pack(some, 48)))
        fewer = batch_loss(model_config, params, plain_batch(pack(other, 48)))
    assert (float(loss.count), float(fewer.count)) == (3, 2)
    assert float(loss.total) > float(fewer.total)


def test_accumulation_is_exact_when_targets_fall_unevenly(model_config, params):
    """Catches: a mean of microbatch means."""
    rows = pack([Piece(list(range(10, 50)), 1 if i % 2 else 38) for i in range(4)], 48)
    with use_mesh(mesh_of(1, 1, 1)):
        run = jax.jit(lambda p, b, m: gradients(model_config, p, b, m), static_argnums=2)
        one, two = run(params, plain_batch(rows), 1), run(params, plain_batch(rows), 2)
    assert float(one[0].value) == pytest.approx(float(two[0].value), rel=1e-6)
    assert largest_relative_error(two[1], one[1]) < 1e-5


def test_the_gradient_is_that_of_the_mean_however_small_the_weights(model_config, params):
    """Catches: weights that sum to less than 1, as those of one question's many rows do, and shrink the gradient."""
    batch = plain_batch(pack(pieces(7), 48))
    share = 1 / float(batch["weights"].sum())
    with use_mesh(mesh_of(1, 1, 1)):
        run = jax.jit(lambda p, b: gradients(model_config, p, b, 1)[1])
        expected, *others = (run(params, {**batch, "weights": batch["weights"] * w}) for w in (1, 1 / 4, 1 / 32, share / 128))
        nothing = run(params, {**batch, "weights": batch["weights"] * 0})
    assert max(largest_relative_error(other, expected) for other in others) < 1e-5
    assert not any(leaf.any() for leaf in jax.tree.leaves(nothing))


@pytest.mark.parametrize("shape", MESHES[1:])
def test_sharded_step_equals_unsharded(shape, model_config, params):
    """Catches: a gradient that is not summed over an axis, or moments that live apart from their parameters."""
    rows = pack(pieces(), 48)
    batch = rows.take(np.arange(8))
    stepped = []
    for each in (MESHES[0], shape):
        mesh = mesh_of(*each)
        with use_mesh(mesh):
            state = init_state(mesh, model_config, CONFIG, place(mesh, model_config, params), seed=0)
            step = make_step(model_config, CONFIG)
            for _ in range(2):
                state, metrics = step(state, place_batch(mesh, batch), {})
        stepped.append((jax.device_get(state.params), float(metrics["loss"])))
    assert stepped[1][1] == pytest.approx(stepped[0][1], rel=1e-5)
    for a, b in zip(jax.tree.leaves(stepped[0][0]), jax.tree.leaves(stepped[1][0]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # Adam's first steps turn tiny gradient differences into full steps


def run(tmp_path, model_config, params, name, config=CONFIG, some=None, shape=(1, 1, 1), **kwargs):
    mesh = mesh_of(*shape)
    with use_mesh(mesh):
        return train(
            mesh, model_config, config, place(mesh, model_config, params), pack(pieces() if some is None else some, 48), seed=1,
            folder=tmp_path / name, **kwargs,
        )  # fmt: skip


def test_a_run_cut_short_goes_on_to_the_same_parameters(tmp_path, model_config, params):
    """Catches: data order, optimiser state or schedule that start again after a resume."""

    class Cut(Exception):
        pass

    def cut(step, metrics):
        if step == 5:
            raise Cut

    whole = run(tmp_path, model_config, params, "whole")
    with pytest.raises(Cut):
        run(tmp_path, model_config, params, "cut", on_step=cut)
    seen = []
    resumed = run(tmp_path, model_config, params, "cut", on_step=lambda step, metrics: seen.append(step))
    assert seen == [5, 6]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    lines = (tmp_path / "cut" / "metrics" / "train.jsonl").read_text().splitlines()
    assert [int(line.split('"step": ')[1].split(",")[0]) for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_state_goes_on_on_other_meshes(tmp_path, model_config, params):
    """Catches: a state that only its own mesh can read, or whose moments end up beside other parameters."""

    def losses(name, shape):
        found = {}
        note = lambda step, metrics: found.update({step: metrics["loss"]})  # noqa: E731
        run(tmp_path, model_config, params, name, shape=shape, on_step=note)
        return found

    whole = losses("whole", (2, 2, 2))
    for name, shape in (("one", (1, 1, 1)), ("eight", (8, 1, 1))):
        shutil.copytree(tmp_path / "whole" / "state", tmp_path / name / "state", ignore=lambda *_: ["6"])
        assert losses(name, shape) == pytest.approx({step: whole[step] for step in (5, 6)}, rel=1e-5)


def test_a_stop_keeps_what_was_trained(tmp_path, model_config, params):
    """Catches: Ctrl-C or a preemption that throws away the steps since the last save."""

    def interrupt(step, metrics):
        if step == 3:
            raise KeyboardInterrupt

    whole = run(tmp_path, model_config, params, "whole")
    rarely = dataclasses.replace(CONFIG, save_every=100)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model_config, params, "stopped", config=rarely, on_step=interrupt)
    seen = []
    resumed = run(tmp_path, model_config, params, "stopped", config=rarely, on_step=lambda step, metrics: seen.append(step))
    assert seen == [5, 6]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_learns_and_leaves_its_input_alone(tmp_path, model_config, params):
    """Catches: a donated buffer that was the caller's, a schedule stuck at zero."""
    before = jax.tree.map(np.array, params)
    losses = []
    run(tmp_path, model_config, params, "learn", on_step=lambda step, metrics: losses.append(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.1
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, model_config, params):
    """Catches: NaN parameters saved over good ones."""
    broken = {**params, "embedding": params["embedding"].at[0, 0].set(jnp.nan)}
    with pytest.raises(UserError, match="loss at step 1 is nan.*lower learning_rate"):
        run(tmp_path, model_config, broken, "nan")
    assert StateCheckpoints(tmp_path / "nan" / "state").restore_latest(None) is None


def test_the_step_that_diverged_can_be_done_again(tmp_path, model_config, params):
    """Catches: a state that later steps have gone on from, or another batch than the one that broke it."""
    some = [*pieces(), Piece([5, 6, 7, 8] * 10, 2, weight=float("inf"))]
    rows = pack(some, 48)
    row = int(np.argmax(~np.isfinite(rows.weights).all(axis=1)))
    step = next(s for s in range(6) if row in batch_rows(1, s, len(rows), 8)) + 1
    assert step > 1
    with pytest.raises(UserError, match=f"loss at step {step} is (inf|nan).*the state before that step and its batch"):
        run(tmp_path, model_config, params, "bad", config=dataclasses.replace(CONFIG, save_every=100), some=some)
    mesh, kept = mesh_of(1, 1, 1), tmp_path / "bad" / "diverged"
    state = StateCheckpoints(kept).restore_latest(abstract_state(mesh, model_config, CONFIG))
    assert int(state.step) == step - 1 and all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
    batch = dict(np.load(kept / "batch.npz"))
    with use_mesh(mesh):
        after, metrics = make_step(model_config, CONFIG)(state, place_batch(mesh, batch), {})
    assert not np.isfinite(metrics["loss"]) and not after.finite


def test_a_later_run_with_the_same_settings_compiles_no_step(model_config, params, tmp_path, monkeypatch):
    """Catches: a step that each round traces and compiles again."""
    traced = []

    def objective(*arguments):
        traced.append(arguments)
        return cross_entropy(model_config)(*arguments)

    monkeypatch.setattr(fine_tuning, "cross_entropy", lambda *settings: objective)
    for name in ("first", "second"):
        run(tmp_path, model_config, params, name)
    assert len(traced) == 1


def test_z_loss_is_the_square_of_the_normaliser(model_config, params):
    """Catches: a z-loss on padding, of another power, or left out of the gradient."""
    batch = plain_batch(pack(pieces(7), 48))
    with use_mesh(mesh_of(1, 1, 1)):
        loss = jax.jit(lambda params, cost: batch_loss(model_config, params, batch, z_loss=cost).total, static_argnums=1)
        both = [loss(params, cost) for cost in (0.0, 0.5)]
        mask = causal_mask(batch["segments"])
        logits, _ = forward(model_config, params, batch["tokens"], batch["positions"], mask)
    wide = np.asarray(logits, np.float64)
    normaliser = np.log(np.exp(wide).sum(axis=-1))
    assert float(both[1] - both[0]) == pytest.approx(0.5 * float((batch["weights"] * normaliser**2).sum()), rel=1e-4)


def test_operations_are_those_that_the_compiler_counts(monkeypatch):
    """Catches: an MFU from a formula that forgets attention, the shared prompts or the backward pass."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shapes stand where arrays would
    shape = ModelConfig(vocab=400, width=64, layers=4, heads=16, kv_heads=16, head_width=16, mlp=128)
    rows = pack(mixture(), 40, share=True)
    config = TrainConfig(batch=len(rows), row_length=40)
    mesh = mesh_of(1, 1, 1)
    with use_mesh(mesh):
        state = abstract_state(mesh, shape, config)
        batch = Batch(place_batch(mesh, rows.take(np.arange(len(rows)))), place_prompts(mesh, rows.prompts))
        step = steps.make_step(cross_entropy(shape), AllWeights(shape), config)
        counted = step.lower(state, batch, {}).compile().cost_analysis()["flops"]
    assert work(shape, config, rows).flops == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize(
    ("kind", "chip"),
    [("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v6 lite", "v6e"), ("NVIDIA H100 80GB HBM3", "h100"), ("GPU X", None)],
)
def test_peaks_are_found_by_what_a_device_calls_itself(kind, chip):
    """Catches: a v5e taken for a v5p; a peak made up for a device that is in no table."""
    device = mock.Mock(spec=jax.Device, device_kind=kind, platform="tpu", process_index=0)
    expected = None if chip is None else 4 * CHIPS[chip].operations
    assert peak_operations([device] * 4, "bfloat16") == expected


def test_the_newest_states_and_the_best_are_kept(tmp_path):
    """Catches: a disk that fills up; the best state removed; a state that does not say what it is of."""
    losses = [3.0, 1.0, 2.0, 2.5, 2.2]
    for start in (0, 3):  # a later process knows what an earlier one saved
        checkpoints = StateCheckpoints(tmp_path, {"seed": 7})
        for step in range(start + 1, start + 4)[: len(losses) - start]:
            checkpoints.save(step, {"x": jnp.full((2,), step)}, {"loss": losses[step - 1]})
        checkpoints.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [2, 4, 5]
    about = json.loads((tmp_path / "5" / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    assert about == {"seed": 7, "step": 5}


def test_batch_rows_is_a_permutation_for_each_epoch():
    """Catches: rows left out or doubled at an epoch's border."""
    taken = np.concatenate([batch_rows(3, step, 10, 4) for step in range(5)])
    assert sorted(taken[:10]) == list(range(10)) and sorted(taken[10:]) == list(range(10))
    assert taken[:10].tolist() != taken[10:].tolist()
    assert batch_rows(3, 2, 10, 4).tolist() == taken[8:12].tolist()


def test_batch_must_divide_over_the_mesh():
    """Catches: a crash inside XLA instead of an error with the numbers."""
    with pytest.raises(UserError, match="finetune.batch=12 in 1 .* data x fsdp = 8 devices"):
        check_batch(mesh_of(8, 1, 1), TrainConfig(batch=12), "finetune")


def test_a_trace_is_written_of_the_steps_asked_for(tmp_path, model_config, params):
    """Catches: a profile that is never stopped, or never begun."""
    run(tmp_path, model_config, params, "traced", config=dataclasses.replace(CONFIG, profile=(3, 4)))
    assert list((tmp_path / "traced/metrics/profile").rglob("*.xplane.pb"))
    rows = [json.loads(line) for line in (tmp_path / "traced/metrics/train.jsonl").read_text().splitlines()]
    assert all(0 < row["mfu"] < 1 for row in rows)
