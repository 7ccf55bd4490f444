"""The loop with objectives, hooks and batches of one's own."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lmsi_jax.core.metrics import Mean
from lmsi_jax.formatting.packing import pack
from lmsi_jax.model import lora
from lmsi_jax.model.config import LoraConfig
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.hooks import Best, Hook, early_stop, validation_loss
from lmsi_jax.training.log import Work
from lmsi_jax.training.loop import Run, train
from lmsi_jax.training.objective import Batch, cross_entropy, place_batch, place_prompts
from lmsi_jax.training.trainable import trainable
from tests.conftest import mesh_of, place
from tests.training import fine_tuning
from tests.training.test_training import CONFIG, mixture, pieces

SHRINK = dataclasses.replace(CONFIG, steps=8, learning_rate=2e-3, schedule="constant", weight_decay=0.0, save_every=1)


class Cut(Exception):
    """A process that is killed."""


def cut_at(step):
    """An `on_step` that kills the run where the metrics of a step are read."""

    def on_step(at, values):
        if at == step:
            raise Cut

    return on_step


def trained_arrays(params):
    return jax.tree.leaves(params.adapters if isinstance(params, lora.Adapted) else params)


def shrink(params, batch):
    """The mean square of the trained arrays, whatever the rows are; they have a metric of their own, "level"."""
    numbers, arrays = batch.rows["numbers"], trained_arrays(params)
    rows = jnp.float32(len(numbers))
    squares, size = sum(jnp.sum(leaf**2) for leaf in arrays), sum(leaf.size for leaf in arrays)
    return Mean(rows * squares, rows * size), {"level": Mean(jnp.sum(numbers), jnp.float32(numbers.size))}


def numbers_of(step):
    """The rows of a step, which are no text."""
    return np.random.default_rng(step).normal(size=(8, 3)).astype(np.float32)


def run_shrink(folder, model_config, params, config=SHRINK, hooks=(), batches=None, **run):
    mesh, folder = mesh_of(1, 1, 1), epath.Path(folder)
    with use_mesh(mesh):
        about = Run(mesh, 0, folder / "state", folder / "metrics/shrink.jsonl", Work(24, 1e6, "float32"), **run)
        batches = batches or (lambda step, model: Batch({"numbers": numbers_of(step)}))
        return train(shrink, batches, trainable(model_config, config), hooks, params, config, about)


def metrics_of(folder):
    (file,) = (folder / "metrics").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def assert_same(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("rank", "accumulate"), [(0, 1), (0, 2), (3, 1), (3, 4)])
def test_an_objective_of_ones_own_trains(rank, accumulate, tmp_path, model_config, params):
    """Catches: a loop or a step that knows tokens or cross-entropy; a metric lost, or a mean of the means of microbatches."""
    config = dataclasses.replace(SHRINK, steps=4, accumulate=accumulate, lora=LoraConfig(rank=rank))
    trained = run_shrink(tmp_path, model_config, params, config)
    rows = metrics_of(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["level"] for row in rows] == pytest.approx([numbers_of(step).mean() for step in (1, 2, 3, 4)], abs=1e-6)
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    arrays = jax.tree.leaves(trained)
    after = sum(float(jnp.sum(leaf**2)) for leaf in arrays) / sum(leaf.size for leaf in arrays)
    assert after < losses[-1], "the loss of a step is of the arrays before it"
    if not rank:
        before = jax.tree.leaves(params)
        assert losses[0] == pytest.approx(sum(float((a**2).sum()) for a in before) / sum(a.size for a in before), rel=1e-5)


@pytest.mark.parametrize(("batch", "shape"), [(4, (2, 2, 2)), (8, (1, 1, 1)), (16, (1, 1, 1))])
def test_the_validation_loss_is_that_of_all_rows_at_once(batch, shape, model_config, params):
    """Catches: rows left out or counted twice where they do not fill a batch; a mean of the means of batches; lost prompts."""
    rows, mesh, objective = pack(mixture(14), 40, share=True), mesh_of(*shape), cross_entropy(model_config)
    assert rows.prompts and len(rows) % batch and len(rows) % 4
    with use_mesh(mesh_of(1, 1, 1)) as one:
        whole = Batch(rows.take(np.arange(len(rows))), place_prompts(one, rows.prompts))
        expected = float(jax.jit(objective)(params, place_batch(one, whole))[0].value)
    with use_mesh(mesh):
        measured = validation_loss(mesh, objective, rows, batch, every=2).measure(place(mesh, model_config, params), 2)
    assert set(measured) == {"validation_loss"}
    assert measured["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_validation_loss_is_written_at_its_steps(tmp_path, model_config, params):
    """Catches: a measurement that is not written as no log is due, of another step's parameters, or none after the last one."""
    held_out, objective, mesh = pack(pieces(9, seed=5), 48), cross_entropy(model_config), mesh_of(1, 1, 1)
    config = dataclasses.replace(CONFIG, steps=7, log_every=5, save_every=100)
    with use_mesh(mesh):
        hooks = (validation_loss(mesh, objective, held_out, 4, every=3),)
        rows = pack(pieces(), 48)
        trained = fine_tuning.train(mesh, model_config, config, params, rows, seed=1, folder=tmp_path, hooks=hooks)
        after = float(jax.jit(objective)(trained, place_batch(mesh, Batch(held_out.take(np.arange(len(held_out))))))[0].value)
    rows = metrics_of(tmp_path)
    assert [row["step"] for row in rows] == [3, 5, 6, 7]
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 6, 7]
    assert rows[-1]["validation_loss"] == pytest.approx(after, rel=1e-5)
    assert len({row["validation_loss"] for row in rows if "validation_loss" in row}) == 3
    assert all(np.isfinite(row["loss"]) for row in rows)


def root_mean_square(params):
    return float(jnp.sqrt(jnp.mean(jnp.concatenate([leaf.ravel() for leaf in trained_arrays(params)]) ** 2)))


@pytest.fixture(scope="module")
def turning(tmp_path_factory, model_config, params):
    """The trained arrays after each step of a run, and a measurement that is 0 after step 3 and positive after any other."""
    after = []

    def note(params, step):
        after.append(jax.device_get(params))
        return {}

    run_shrink(tmp_path_factory.mktemp("turning"), model_config, params, hooks=[Hook(1, note)])
    sizes = [root_mean_square(arrays) for arrays in after]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes) == SHRINK.steps
    return after, lambda params: abs(root_mean_square(params) - sizes[2])


@pytest.mark.parametrize(("killed", "left"), [(4, [3, 4, 5]), (5, [5])])
def test_a_run_that_ends_early_ends_at_the_same_step_when_it_is_resumed(killed, left, turning, tmp_path, model_config, params):
    """Catches: a patience that starts again after a resume, a last state that is not saved, or one step too many."""
    after, measure = turning
    config, best = dataclasses.replace(SHRINK, save_every=2), Best(metric="turn")
    how = {
        "config": config,
        "hooks": [Hook(1, lambda params, step: {"turn": measure(params)})],
        "stop": early_stop(best, patience=2),
    }

    whole = run_shrink(tmp_path / "whole", model_config, params, **how)
    assert [row["step"] for row in metrics_of(tmp_path / "whole")] == [1, 2, 3, 4, 5]
    assert_same(whole, after[4])

    with pytest.raises(Cut):
        run_shrink(tmp_path / "cut", model_config, params, on_step=cut_at(killed), **how)
    for steps in (left, []):  # the second time it has ended already
        seen = []
        note = lambda step, values, seen=seen: seen.append(step)  # noqa: E731
        resumed = run_shrink(tmp_path / "cut", model_config, params, on_step=note, **how)
        assert seen == steps
        assert_same(resumed, whole)
    turns = [[row["turn"] for row in metrics_of(tmp_path / name)] for name in ("whole", "cut")]
    assert turns[0] == turns[1] and turns[0][2] == 0


def test_a_resumed_run_stops_by_the_same_history(tmp_path, model_config, params):
    """Catches: steps that no hook measured in the history of a resumed run, which its uninterrupted twin never sees."""
    config = dataclasses.replace(SHRINK, save_every=2, log_every=1)
    how = {"hooks": [Hook(3, lambda params, step: {"x": 1.0})], "stop": lambda history: len(history) >= 2}
    whole = run_shrink(tmp_path / "whole", model_config, params, config, **how)
    with pytest.raises(Cut):
        run_shrink(tmp_path / "cut", model_config, params, config, on_step=cut_at(5), **how)
    resumed = run_shrink(tmp_path / "cut", model_config, params, config, **how)
    assert [row["step"] for row in metrics_of(tmp_path / "whole")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in metrics_of(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]
    assert_same(resumed, whole)


def test_a_measurement_that_is_interrupted_is_made_after_the_resume(turning, tmp_path, model_config, params):
    """Catches: Ctrl-C during a long validation that leaves out its step, so that training ends at another one."""
    after, measure = turning
    calls = []

    def interrupted(params, step):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"turn": measure(params)}

    config, stop = dataclasses.replace(SHRINK, save_every=2), early_stop(Best("turn"), patience=2)
    with pytest.raises(KeyboardInterrupt):
        run_shrink(tmp_path, model_config, params, config, hooks=[Hook(1, interrupted)], stop=stop)
    resumed = run_shrink(tmp_path, model_config, params, config, hooks=[Hook(1, interrupted)], stop=stop)
    assert [row["step"] for row in metrics_of(tmp_path) if "turn" in row] == [1, 2, 3, 4, 5]
    assert_same(resumed, after[4])


def test_a_state_that_a_stop_saves_has_its_own_metrics(tmp_path, model_config, params):
    """Catches: the loss of the step before beside a state, by which another one is then taken for the best."""
    losses, config = {}, dataclasses.replace(SHRINK, save_every=100)
    note = lambda step, values: losses.update({step: values["loss"]})  # noqa: E731
    run_shrink(tmp_path / "whole", model_config, params, config, on_step=note)

    def interrupt(step, values):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_shrink(tmp_path / "cut", model_config, params, config, on_step=interrupt)
    (state,) = (path for path in (tmp_path / "cut/state").iterdir() if path.name.isdigit())
    saved = json.loads((state / "metrics/metrics").read_text())
    assert saved["loss"] == losses[int(state.name)]


@pytest.mark.parametrize(
    ("mode", "values", "patience", "ends"),
    [
        ("min", [3, 2, 1, 2, 3], 2, True),
        ("min", [3, 2, 1, 2], 2, False),
        ("min", [3, 2, 1, 1, 1], 2, True),  # as good is no better
        ("max", [3, 2, 1], 2, True),
        ("max", [1, 2, 3], 1, False),
        ("min", [], 1, False),
    ],
)
def test_patience_counts_measurements(mode, values, patience, ends):
    """Catches: patience counted in steps, in rows without the metric, or against the wrong end of a metric."""
    history = [row for step, value in enumerate(values) for row in ({"step": 2 * step, "x": value}, {"step": 2 * step + 1})]
    assert early_stop(Best("x", mode), patience)(history) == ends


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_state_is_returned(mode, turning, tmp_path, model_config, params):
    """Catches: the last arrays in place of the best, the worst of them, or a best that a later process does not know."""
    after, measure = turning
    sign, best = 1 if mode == "min" else -1, Best("validation_loss", mode, return_best=True)
    hooks = [Hook(1, lambda params, step: {"validation_loss": sign * measure(params)})]
    assert_same(run_shrink(tmp_path / "whole", model_config, params, hooks=hooks, best=best), after[2])
    with pytest.raises(Cut):
        run_shrink(tmp_path / "cut", model_config, params, hooks=hooks, best=best, on_step=cut_at(7))
    for _ in range(2):  # goes on from step 6, and then has nothing left to do
        assert_same(run_shrink(tmp_path / "cut", model_config, params, hooks=hooks, best=best), after[2])
    last = run_shrink(tmp_path / "last", model_config, params, hooks=hooks, best=dataclasses.replace(best, return_best=False))
    assert_same(last, after[-1])


def test_batches_are_asked_for_by_the_number_of_their_step(tmp_path, model_config, params):
    """Catches: batches drawn from a stream, which a resumed run would have to wind forward; a step asked for twice."""
    asked = []

    def batches(step, model):
        asked.append(step)
        return Batch({"numbers": numbers_of(step)})

    def steps():
        assert all(type(step) is int for step in asked)
        found = list(asked)
        asked.clear()
        return found

    config = dataclasses.replace(SHRINK, steps=6, save_every=2)
    whole = run_shrink(tmp_path / "whole", model_config, params, config, batches=batches)
    assert steps() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Cut):
        run_shrink(tmp_path / "cut", model_config, params, config, batches=batches, on_step=cut_at(3))
    assert steps() == [1, 2, 3, 4]  # each step is dispatched before the one before it is read
    resumed = run_shrink(tmp_path / "cut", model_config, params, config, batches=batches)
    assert steps() == [3, 4, 5, 6]
    assert_same(resumed, whole)
    run_shrink(tmp_path / "cut", model_config, params, config, batches=batches)
    assert steps() == []
