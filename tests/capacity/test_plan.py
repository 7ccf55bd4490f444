"""Plans for devices that are not here, against what is then measured on devices that are."""

import dataclasses

import jax
import jaxtyping
import pytest

from lmsi_jax.capacity import plan
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import build
from lmsi_jax.decoding import memory
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.recipes.config import Config
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.config import TrainConfig
from tests.conftest import initial, mesh_of, place
from tests.training.fine_tuning import init_state, make_step, place_batch
from tests.training.test_training import pack, pieces

SHAPE = ModelConfig(vocab=512, width=64, layers=6, heads=4, kv_heads=4, head_width=16, mlp=256, windows=(0, 32) * 3)
CONFIG = build(
    Config,
    {
        "mesh": {"data": 2, "fsdp": 2, "tensor": 2},
        "sample": {"lanes": 8, "slots": 8, "paths": 16, "max_tokens": 128},
        "finetune": {"batch": 8, "row_length": 128},
        "plan": {"prompt": 200, "question": 64},
    },
)


@pytest.fixture(autouse=True)
def descriptions():
    """Shapes stand where arrays would: no types are checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("program", ["_decode", "_prefill_questions", "_prefill_prefix", "_train"])
def test_a_plan_from_two_depths_is_that_of_the_whole_model(program):
    """Catches: layers counted wrongly, a window pattern cut in the middle, memory that does not grow as was assumed."""
    mesh = make_mesh(CONFIG.mesh, jax.devices())
    decodings = plan._decodings(CONFIG, SHAPE, mesh, plan.CHIPS["cpu"])
    decoding = [decodings["sample"]] if program in ("_decode", "_prefill_questions") else []
    compile, least = getattr(plan, program), plan.PREFILL_DEPTH if "prefill" in program else 1
    whole = compile(CONFIG, SHAPE, mesh, *decoding)
    found = plan._whole(compile, CONFIG, SHAPE, mesh, *decoding, least=least)
    assert plan._period(SHAPE.windows) == 2
    assert found.arguments == pytest.approx(whole.arguments, rel=0.01)
    assert found.memory == pytest.approx(whole.memory, rel=0.1)
    assert found.operations == pytest.approx(whole.operations, rel=0.05)


def test_what_trains_takes_what_was_planned():
    """Catches: a plan that forgets moments or rows, or counts them for one device of eight."""
    train = TrainConfig(batch=8, row_length=128, share_prompts=False)
    mesh = make_mesh(CONFIG.mesh, jax.devices())
    planned = plan._train(dataclasses.replace(CONFIG, finetune=train), SHAPE, mesh)
    with use_mesh(mesh_of(1, 1, 1)):
        params = initial(SHAPE)
    with use_mesh(mesh):
        state = init_state(mesh, SHAPE, train, place(mesh, SHAPE, params), 0)
        batch = place_batch(mesh, pack(pieces(160), 128).take(list(range(8))))
        start = place(mesh, SHAPE, params)  # what training starts from is kept
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves((state, batch, start)))
        make_step(SHAPE, train)(state, batch, {}, None)
    assert planned.arguments == pytest.approx(held, rel=0.1)


def test_microbatches_are_all_counted():
    """Catches: a step of many microbatches that is planned to take the time of one."""
    mesh = make_mesh(CONFIG.mesh, jax.devices())
    trains = [TrainConfig(batch=16, row_length=128, share_prompts=False, accumulate=parts) for parts in (1, 4)]
    one, four = (plan._train(dataclasses.replace(CONFIG, finetune=train), SHAPE, mesh) for train in trains)
    assert four.operations == pytest.approx(one.operations, rel=0.1) and four.working < one.working


def test_tables_say_whether_it_fits(capsys, monkeypatch):
    """Catches: a plan for a pod that is too small which nobody notices; a dollar that is a cent."""
    config = dataclasses.replace(CONFIG, plan=dataclasses.replace(CONFIG.plan, preset="tiny", price=2.0, watts=500.0))
    monkeypatch.setattr(plan, "preset", lambda name: SHAPE)
    for program in ("_decode", "_prefill_questions", "_prefill_prefix", "_train"):
        monkeypatch.setattr(plan, program, lambda config, shape, mesh, *decoding: plan.Cost(2e6 * shape.layers, 1e6, 1e9))
    assert plan.plan(config, ["cpu:8"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "8 devices of 8 GiB, fits" in said and "dollars" in said and "kWh" in said
    small = plan.Chip(2.0**20, 1e12, 1e11)
    monkeypatch.setitem(plan.CHIPS, "cpu", small)
    assert plan.plan(config, ["cpu:8"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "does NOT fit" in said and "None of these fits" in said


def test_what_the_compiler_refuses_does_not_fit(capsys, monkeypatch):
    """Catches: a stack trace where a topology is too small even for a few layers."""

    def refuse(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM.")

    monkeypatch.setattr(plan, "_train", refuse)
    monkeypatch.setattr(plan, "_prefill_prefix", lambda config, shape, mesh: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "_prefill_questions", lambda *args: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "_decode", lambda config, shape, mesh, *decoding: plan.Cost(2e6 * shape.layers, 1e6, 1e9))
    monkeypatch.setattr(plan, "model_shape", lambda config: SHAPE)
    assert plan.plan(CONFIG, ["cpu:8"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Not even 4 of 6 layers" in said and "does NOT fit" in said


def test_every_program_of_the_run_is_planned(monkeypatch, capsys):
    """Catches: a verdict on sampling alone, where evaluation or the prompt's prefill takes several times its memory."""
    planned = []
    monkeypatch.setattr(plan, "_train", lambda config, shape, mesh: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "_prefill_prefix", lambda config, shape, mesh: plan.Cost(1e12, 1e6, 1e9))
    monkeypatch.setattr(plan, "_prefill_questions", lambda *args: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "_decode", lambda *args: planned.append(args[-1]) or plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "model_shape", lambda config: SHAPE)
    assert plan.plan(CONFIG, ["cpu:8"]) == 1, "the largest program decides"
    assert {(each.limits.paths, each.limits.max_tokens) for each in planned} == {(16, 128), (1, 32), (1, 128)}
    rows = capsys.readouterr().out
    assert all(
        name in rows for name in ("prefill prompt", "prefill questions", "sample", "greedy direct", "greedy CoT", "train")
    )
    planned.clear()
    plan.plan(dataclasses.replace(CONFIG, plan=dataclasses.replace(CONFIG.plan, eval_questions=0)), ["cpu:8"])
    assert {each.limits.paths for each in planned} == {16}


def test_lanes_that_are_chosen_are_planned_with_what_fits(monkeypatch, capsys):
    """Catches: a ZeroDivisionError for sample.lanes=0, which is advised for decoding."""
    monkeypatch.setattr(plan, "_train", lambda config, shape, mesh: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "_prefill_prefix", lambda config, shape, mesh: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "_prefill_questions", lambda *args: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "_decode", lambda *args: plan.Cost(1e6, 1e6, 1e9))
    monkeypatch.setattr(plan, "model_shape", lambda config: SHAPE)
    chosen = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, lanes=0))
    assert plan.plan(chosen, ["cpu:8"]) == 0
    mesh = make_mesh(CONFIG.mesh, jax.devices())
    limits = plan._decodings(chosen, SHAPE, mesh, plan.CHIPS["cpu"])["sample"].limits
    needed = memory.estimate(mesh, SHAPE, limits, CONFIG.plan.prompt)
    assert limits.lanes > 8 and needed.total <= 0.9 * plan.CHIPS["cpu"].memory
    assert f"{limits.lanes} lanes" in " ".join(capsys.readouterr().out.split())


def test_lanes_are_left_open_to_what_a_run_would_take(monkeypatch):
    """Catches: more lanes than a shard has questions; a chip too small for one lane that ends the plans of all the others."""
    sample = dataclasses.replace(CONFIG.sample, lanes=0, questions_per_shard=1000)
    mesh, chosen = make_mesh(CONFIG.mesh, jax.devices()), dataclasses.replace(CONFIG, sample=sample)
    chips = [plan.Chip(size, 1e12, 1e11) for size in (1e6, 4e7, 2.0**33)]
    lanes = [plan._decodings(chosen, SHAPE, mesh, chip)["sample"].limits.lanes for chip in chips]
    assert 4 == lanes[0] < lanes[1] < lanes[2] == 1000


def test_scores_are_planned_where_there_are_any():
    """Catches: hours and memory of an evaluation that a config without held-out questions never makes."""
    mesh = make_mesh(CONFIG.mesh, jax.devices())
    tasks = {task: dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, task=task)) for task in ("jsonl", "gsm8k")}
    tasks["held out"] = dataclasses.replace(
        tasks["jsonl"], data=dataclasses.replace(tasks["jsonl"].data, eval_questions="FILE.jsonl")
    )
    planned = {name: list(plan._decodings(config, SHAPE, mesh, plan.CHIPS["cpu"])) for name, config in tasks.items()}
    assert planned["jsonl"] == planned["gsm8k"] == ["sample"]  # gsm8k by JSON Lines, of which none is named
    assert planned["held out"] == ["sample", "greedy direct", "greedy CoT"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("v5e", "write a chip and a number or a grid"), ("v9:4x4", "Chips: v4, v5e"), ("cpu:64", "cpu_devices=64")],
)
def test_topologies_that_are_none(name, said):
    """Catches: a stack trace for a slip of the pen."""
    with pytest.raises(UserError, match=said):
        plan.devices_of(name)


@pytest.mark.slow
def test_a_tpu_that_is_not_here():
    """Catches: programs that only a CPU compiles."""
    pytest.importorskip("libtpu")
    config = dataclasses.replace(CONFIG, mesh=dataclasses.replace(CONFIG.mesh, data=1, fsdp=4, tensor=4))
    found = plan._plan(config, dataclasses.replace(SHAPE, dtype="bfloat16"), "v5e:4x4")
    assert found.devices == 16 and found.fits and found.programs["sample"].operations > 0
