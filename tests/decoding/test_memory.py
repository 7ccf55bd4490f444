"""The memory that decoding is said to take, against what the compiler says, and what is made of it."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from lmsi_jax import model
from lmsi_jax.core import rng
from lmsi_jax.core.config import ModelConfig, SampleConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.presets import preset
from lmsi_jax.decoding import engine, memory
from lmsi_jax.decoding.memory import Shape
from lmsi_jax.decoding.prefill import Prompt, prefill_questions
from lmsi_jax.decoding.scheduler import Decoder, Decoding
from lmsi_jax.sharding import use_mesh
from tests.conftest import mesh_of, place

CONFIG = ModelConfig(vocab=400, width=64, layers=3, heads=4, kv_heads=4, head_width=16, mlp=128, context=4096)


@contextlib.contextmanager
def descriptions():
    """Descriptions stand where arrays would, as lowering puts them: no types are checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def compiled(mesh, tokenizer, shape):
    """The compiler's account of the decode program: bytes of arguments on a device."""
    with use_mesh(mesh_of(1, 1, 1)):
        params = place(mesh, CONFIG, model.init(CONFIG, jax.random.key(0)))
    with use_mesh(mesh):
        decoding = Decoding(shape.paths, 1.0, shape.max_tokens, shape.lanes, shape.slots)
        decoder = Decoder(mesh, CONFIG, params, tokenizer, decoding, "one " * 50, shape.question + 1, rng.stage_key(0, "t"))
        state = engine.start(CONFIG, decoder._settings, decoder._slots)
        with descriptions():
            program = engine.decode.lower(CONFIG, decoder._settings, params, decoder._task, state).compile()
        prompt = int(decoder._task.prompt.length)
        planned = memory.needed(mesh, CONFIG, dataclasses.replace(shape, prompt=prompt), memory.held(params))
        return program.memory_analysis(), planned


@pytest.mark.parametrize("mesh_shape", [(1, 1, 1), (2, 2, 2)])
def test_the_plan_is_what_the_compiler_says(mesh_shape, tokenizer):
    """Catches: a cache counted once too often, for all devices, or in the wrong dtype."""
    shape = Shape(lanes=8, slots=16, paths=32, max_tokens=128, prompt=0, question=96)
    said, planned = compiled(mesh_of(*mesh_shape), tokenizer, shape)
    in_lanes = planned.questions * engine.HELD // (engine.HELD + memory.READY)
    arguments = planned.weights + planned.prompt + in_lanes + planned.paths + planned.output // 2
    assert said.argument_size_in_bytes == pytest.approx(arguments, rel=0.03)
    assert said.argument_size_in_bytes + said.temp_size_in_bytes < 1.3 * planned.total


def test_prefill_works_with_what_the_compiler_says():
    """Catches: logits counted for tokens whose logits nobody reads, or scores against the prompt forgotten."""
    config = dataclasses.replace(CONFIG, vocab=20_000)
    shape = Shape(lanes=64, slots=1, paths=1, max_tokens=16, prompt=400, question=96)
    mesh = mesh_of(1, 1, 1)
    with use_mesh(mesh), descriptions():
        params, _ = model.abstract(config)
        layer = jax.ShapeDtypeStruct((1, config.kv_heads, shape.prompt, config.head_width), jnp.float32)
        prompt = Prompt([(layer, layer)] * config.layers, jax.ShapeDtypeStruct((), jnp.int32))
        tokens, length = (jax.ShapeDtypeStruct(size, jnp.int32) for size in ((64, 96), (64,)))
        program = prefill_questions.lower(config, shape.question, params, prompt, tokens, length).compile()
    said = program.memory_analysis().temp_size_in_bytes
    assert said == pytest.approx(memory.needed(mesh, config, shape).working, rel=0.2)


def test_questions_take_whole_slots():
    """Catches: caches counted by tokens where they are laid out in blocks of 32 slots."""
    shape = Shape(lanes=8, slots=1, paths=1, max_tokens=16, prompt=400, question=96)
    sizes = [memory.needed(mesh_of(1, 1, 1), CONFIG, dataclasses.replace(shape, question=n)).questions for n in (65, 96, 97)]
    assert sizes[0] == sizes[1] == sizes[2] * 3 // 4


def test_lanes_are_as_many_as_fit():
    """Catches: a choice that ignores the budget, or the devices that the lanes divide over."""
    shape = Shape(lanes=1000, slots=8, paths=32, max_tokens=256, prompt=500, question=100)
    mesh = mesh_of(2, 2, 2)
    for budget in (2**26, 2**28, 2**30):
        lanes = memory.fitting_lanes(mesh, CONFIG, shape, budget)
        totals = [memory.needed(mesh, CONFIG, dataclasses.replace(shape, lanes=n)).total for n in (lanes, lanes + 4)]
        assert lanes % 4 == 0 and totals[0] <= budget and (lanes == 1000 or totals[1] > budget), (budget, lanes, totals)
    with pytest.raises(
        UserError, match=r"4 lanes of 8 slots need [\d.]+ MiB.*and there are 1.0 MiB.*fewer --config.sample.slots"
    ):
        memory.fitting_lanes(mesh, CONFIG, shape, 2**20)


@pytest.mark.parametrize(
    ("name", "mesh_shape", "question"),
    [
        ("gemma-2-2b", (1, 1, 1), 128),
        ("gemma-2-2b", (1, 1, 1), 256),
        ("llama-3.2-1b", (1, 1, 1), 256),
        ("gemma-2-9b", (1, 2, 4), 256),
    ],
)
def test_scoring_takes_no_more_than_sampling(name, mesh_shape, question):
    """Catches: greedy decoding whose lanes keep caches of six questions for one path each, several times what was planned."""
    config = dataclasses.replace(preset(name), dtype="bfloat16", param_dtype="bfloat16")
    sample, mesh = SampleConfig(lanes=16, slots=32), mesh_of(*mesh_shape)
    weights, prompt = memory.stored(mesh, config), 900
    sampling = memory.needed(mesh, config, memory.sampling_shape(sample, 16, prompt, question), weights)
    asked = Shape(memory.greedy_lanes(sample, mesh.size("batch")), 1, 1, sample.max_tokens, prompt, question)
    assert memory.needed(mesh, config, asked, weights).total > sampling.total, "all rows at once would take more"
    most = memory.budget(mesh, config, sample, prompt, question, weights, free=0)
    lanes = memory.fitting_lanes(mesh, config, asked, most, weights)
    greedy = memory.needed(mesh, config, dataclasses.replace(asked, lanes=lanes), weights)
    assert greedy.total <= sampling.total == most and lanes >= mesh.size("batch")


def test_small_models_are_scored_with_all_rows():
    """Catches: scoring slowed down to save megabytes of a model for which they do not matter."""
    mesh, sample = mesh_of(2, 1, 1), SampleConfig(lanes=16, slots=8, max_tokens=128)
    config = ModelConfig()
    weights = memory.stored(mesh, config)
    asked = Shape(memory.greedy_lanes(sample, 2), 1, 1, 128, 60, 96)
    most = memory.budget(mesh, config, sample, 60, 96, weights, free=0)
    assert memory.fitting_lanes(mesh, config, asked, most, weights) == 128


def test_running_out_of_memory_names_what_to_change():
    """Catches: a page of the runtime's own words in the place of the numbers and the setting."""
    shape = Shape(lanes=64, slots=32, paths=32, max_tokens=256, prompt=500, question=100)
    planned = memory.needed(mesh_of(1, 1, 1), CONFIG, shape)
    said = r"64 lanes of 32 slots.*GiB a device \(weights 0.6 MiB.*Halve --config.sample.lanes"
    with pytest.raises(UserError, match=said), memory.explained(planned, shape):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError), memory.explained(planned, shape):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize("mesh_shape", [(1, 1, 1), (2, 2, 2)])
def test_int8_weights_are_a_quarter_and_say_the_same(mesh_shape, model_config, params):
    """Catches: a scale along the wrong axis; a weight left out; a model that forgets its sharding."""
    mesh = mesh_of(*mesh_shape)
    tokens = jax.random.randint(jax.random.key(1), (4, 16), 0, model_config.vocab)
    positions = jnp.broadcast_to(jnp.arange(16)[None], (4, 16))
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((16, 16), bool))[None], (4, 16, 16))
    with use_mesh(mesh):
        whole = place(mesh, model_config, params)
        rounded = model.quantize(whole)
        run = jax.jit(lambda p: model.forward(model_config, p, tokens, positions, mask)[0])
        expected, got = run(whole), run(rounded)
    assert memory.held(rounded) < 0.4 * memory.held(whole)
    error = jnp.sqrt(jnp.mean((got - expected) ** 2) / jnp.var(expected))
    assert 1e-4 < error < 0.03, error
