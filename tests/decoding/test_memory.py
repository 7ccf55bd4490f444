"""The memory that decoding is said to take, against what the compiler says, and what is made of it."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from lmsi_jax.core import rng
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import part
from lmsi_jax.decoding import engine, memory
from lmsi_jax.decoding.config import Batching, SampleConfig, Sampling
from lmsi_jax.decoding.engine import Limits
from lmsi_jax.decoding.prefill import Prefix, prefill_questions
from lmsi_jax.decoding.scheduler import Engine
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.presets import preset
from lmsi_jax.model.quantize import quantize
from lmsi_jax.sharding.rules import use_mesh
from tests.conftest import initial, mesh_of, place

CONFIG = ModelConfig(vocab=400, width=64, layers=3, heads=4, kv_heads=4, head_width=16, mlp=128, context=4096)


@contextlib.contextmanager
def descriptions():
    """Descriptions stand where arrays would, as lowering puts them: no types are checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def compiled(mesh, tokenizer, limits):
    """The compiler's account of the decode program: bytes of arguments on a device."""
    with use_mesh(mesh_of(1, 1, 1)):
        params = place(mesh, CONFIG, initial(CONFIG))
    with use_mesh(mesh):
        of_model = Engine(mesh, CONFIG, tokenizer, dataclasses.replace(limits, question=limits.question + 1))
        prefix = of_model.prefill(params, "one " * 50)
        call = of_model._begin(params, prefix, [], Sampling(), rng.stage_key(0, "t"))
        state = engine.start(CONFIG, of_model.limits)
        with descriptions():
            program = engine.decode.lower(call.program, params, call.context, state).compile()
        planned = memory.estimate(mesh, CONFIG, limits, int(prefix.length), memory.bytes_on_device(params))
        return program.memory_analysis(), planned


@pytest.mark.parametrize("mesh_shape", [(1, 1, 1), (2, 2, 2)])
def test_the_plan_is_what_the_compiler_says(mesh_shape, tokenizer):
    """Catches: a cache counted once too often, for all devices, or in the wrong dtype."""
    limits = Limits(lanes=8, slots=16, paths=32, max_tokens=128, question=96)
    said, planned = compiled(mesh_of(*mesh_shape), tokenizer, limits)
    in_lanes = planned.questions * engine.PER_LANE // (engine.PER_LANE + memory.READY)
    arguments = planned.weights + planned.prompt + in_lanes + planned.paths + planned.output // 2
    assert said.argument_size_in_bytes == pytest.approx(arguments, rel=0.03)
    assert said.argument_size_in_bytes + said.temp_size_in_bytes < 1.3 * planned.total


def test_prefill_works_with_what_the_compiler_says():
    """Catches: logits counted for tokens whose logits nobody reads, or scores against the prompt forgotten."""
    config = dataclasses.replace(CONFIG, vocab=20_000)
    limits = Limits(lanes=64, slots=1, paths=1, max_tokens=16, question=96)
    mesh = mesh_of(1, 1, 1)
    with use_mesh(mesh), descriptions():
        params, _ = transformer.abstract(config)
        layer = jax.ShapeDtypeStruct((1, config.kv_heads, 400, config.head_width), jnp.float32)
        prefix = Prefix([(layer, layer)] * config.layers, jax.ShapeDtypeStruct((), jnp.int32))
        tokens, length = (jax.ShapeDtypeStruct(size, jnp.int32) for size in ((64, 96), (64,)))
        program = prefill_questions.lower(config, limits.question, params, prefix, tokens, length).compile()
    said = program.memory_analysis().temp_size_in_bytes
    assert said == pytest.approx(memory.estimate(mesh, config, limits, 400).working, rel=0.2)


def test_questions_take_whole_slots():
    """Catches: caches counted by tokens where they are laid out in blocks of 32 slots."""
    limits = [Limits(lanes=8, slots=1, paths=1, max_tokens=16, question=n) for n in (65, 96, 97)]
    sizes = [memory.estimate(mesh_of(1, 1, 1), CONFIG, each, 400).questions for each in limits]
    assert sizes[0] == sizes[1] == sizes[2] * 3 // 4


def test_lanes_are_as_many_as_fit():
    """Catches: a choice that ignores the budget, or the devices that the lanes divide over."""
    limits = Limits(lanes=1000, slots=8, paths=32, max_tokens=256, question=100)
    mesh = mesh_of(2, 2, 2)
    for budget in (2**26, 2**28, 2**30):
        lanes = memory.fitting_lanes(mesh, CONFIG, limits, 500, budget)
        totals = [memory.estimate(mesh, CONFIG, dataclasses.replace(limits, lanes=n), 500).total for n in (lanes, lanes + 4)]
        assert lanes % 4 == 0 and totals[0] <= budget and (lanes == 1000 or totals[1] > budget), (budget, lanes, totals)
    with pytest.raises(UserError, match=r"4 lanes of 8 slots need [\d.]+ MiB.*but only 1.0 MiB.*smaller --config.sample.slots"):
        memory.fitting_lanes(mesh, CONFIG, limits, 500, 2**20)


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
    weights, prefix = memory.weight_bytes(mesh, config), 900
    limits = memory.limits(sample, sample, question)
    sampling = memory.estimate(mesh, config, limits, prefix, weights)
    one = part(sample, Batching).for_greedy(mesh.size("batch"), sample.paths)
    asked = memory.limits(sample.greedy(sample.max_tokens), one, question)
    assert memory.estimate(mesh, config, asked, prefix, weights).total > sampling.total, "all rows at once would take more"
    most = memory.budget(mesh, config, limits, sample, prefix, weights, free=0)
    lanes = memory.fitting_lanes(mesh, config, asked, prefix, most, weights)
    greedy = memory.estimate(mesh, config, dataclasses.replace(asked, lanes=lanes), prefix, weights)
    assert greedy.total <= sampling.total == most and lanes >= mesh.size("batch")


def test_small_models_are_scored_with_all_rows():
    """Catches: scoring slowed down to save megabytes of a model for which they do not matter."""
    mesh, sample = mesh_of(2, 1, 1), SampleConfig(lanes=16, slots=8, max_tokens=128)
    config = ModelConfig()
    weights = memory.weight_bytes(mesh, config)
    one = part(sample, Batching).for_greedy(2, sample.paths)
    asked = memory.limits(sample.greedy(128), one, 96)
    most = memory.budget(mesh, config, memory.limits(sample, sample, 96), sample, 60, weights, free=0)
    assert memory.fitting_lanes(mesh, config, asked, 60, most, weights) == 128


def test_running_out_of_memory_names_what_to_change():
    """Catches: a page of the runtime's own words in the place of the numbers and the setting."""
    limits = Limits(lanes=64, slots=32, paths=32, max_tokens=256, question=100)
    planned = memory.estimate(mesh_of(1, 1, 1), CONFIG, limits, 500)
    said = r"64 lanes of 32 slots.*GiB per device \(weights 0.6 MiB.*Halve --config.sample.lanes"
    with pytest.raises(UserError, match=said), memory.explain_out_of_memory(planned, limits):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError), memory.explain_out_of_memory(planned, limits):
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
        rounded = quantize(whole, transformer.specs(model_config))
        run = jax.jit(lambda p: transformer.forward(model_config, p, tokens, positions, mask)[0])
        expected, got = run(whole), run(rounded)
    assert memory.bytes_on_device(rounded) < 0.4 * memory.bytes_on_device(whole)
    error = jnp.sqrt(jnp.mean((got - expected) ** 2) / jnp.var(expected))
    assert 1e-4 < error < 0.03, error
