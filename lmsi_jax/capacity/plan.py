"""Plan a run for devices that this machine does not have: its programs are compiled ahead of time for a topology.

Only two shallow models of the config's shape are compiled. Their difference is the cost of a layer, from which the cost at
full depth is extrapolated. This is exact for costs that are linear in the layers, such as memory and operations.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.table import Table

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import Numerics, resolve_numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import CHIPS, GIB, TPUS, Chip, parse_topology
from lmsi_jax.core.progress import console
from lmsi_jax.core.settings import part
from lmsi_jax.decoding import engine, memory
from lmsi_jax.decoding.config import Batching, Sampling, Truncation
from lmsi_jax.decoding.engine import Limits, Program
from lmsi_jax.decoding.prefill import CHUNK, Prefix, prefill_chunk, prefill_questions
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.presets import preset
from lmsi_jax.sharding.mesh import Mesh, make_mesh
from lmsi_jax.sharding.rules import sharding, use_mesh, with_shardings
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.training.objective import Batch, SharedPrompts, cross_entropy
from lmsi_jax.training.step import abstract_state, make_step
from lmsi_jax.training.trainable import trainable

Config = Any  # the root config of a self-improvement run
CPU_STANDS_IN = "; compiled for the CPU instead of the GPU, with caches in float32: memory is an upper estimate"

PREFILL_DEPTH = 3  # minimum layers to compile for prefill, as its last layer computes only keys and values


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one program on one device."""

    arguments: float  # bytes
    working: float  # bytes of temporaries
    operations: float  # floating-point operations

    @property
    def memory(self) -> float:
        return self.arguments + self.working

    def seconds(self, chip: Chip) -> float:
        """Return the time at the roofline: the longer of computing the operations and reading the arguments once."""
        return max(self.operations / chip.operations, self.arguments / chip.bandwidth)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The cost of a config on one topology."""

    topology: str
    chip: Chip
    devices: int
    lanes: int  # of sampling
    programs: dict[str, Cost]  # by program; for decoding and training, the cost of one step
    seconds: dict[str, float]  # seconds per round by program, at the roofline

    @property
    def peak_bytes(self) -> float:
        """Peak memory of a device, in bytes: that of the largest program."""
        return max(cost.memory for cost in self.programs.values())

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.chip.memory

    @property
    def chip_hours(self) -> float:
        return sum(self.seconds.values()) * self.devices / 3600


def plan(config: Config, topologies: list[str]) -> int:
    """Print a table for each topology, and the one that fits with the fewest chip hours.

    Return the exit status: 0, or 1 if the config fits none of them. Raises UserError when a topology is invalid.
    """
    shape = model_shape(config)
    plans = [_plan(config, shape, name) for name in topologies]
    for each in plans:
        console.print(_table(config, each))
    fitting = [each for each in plans if each.fits]
    if not fitting:
        console.print(
            "None of these fits. Use more devices, --config.mesh.fsdp or .tensor, --config.finetune.remat=full, or fewer lanes."
        )
        return 1
    best = min(fitting, key=lambda each: each.chip_hours)
    if len(plans) > 1:
        console.print(f"The cheapest topology that fits: {best.topology}, {best.chip_hours:,.1f} chip hours per round.")
    return 0


def model_shape(config: Config) -> ModelConfig:
    """Return the architecture to plan for: the preset `plan.preset` in bfloat16, or else that of `model.checkpoint`."""
    if not config.plan.preset:
        return folder.load_config(config.model.checkpoint)
    return replace(preset(config.plan.preset), param_dtype="bfloat16", dtype="bfloat16")  # as a real run would use


def devices_of(name: str) -> tuple[Chip, list[Any]]:
    """Return the chip and the devices of a topology such as v5e:4x4, h100:8 or cpu:8.

    A TPU topology requires libtpu, but no TPU. For other chips the programs are compiled for as many devices of this machine.
    Raises UserError when the name is invalid, or the topology or that many devices are not available.
    """
    chip, count = parse_topology(name)
    if chip in TPUS:
        from jax.experimental import topologies

        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        jax.config.update("jax_enable_compilation_cache", False)  # this machine could not load the programs from the cache
        try:
            return CHIPS[chip], list(topologies.get_topology_desc(name, "tpu").devices)
        except Exception as error:
            raise UserError(
                f"--topology={name} is not available: {str(error).splitlines()[0][:300]}. It requires `pip install libtpu` "
                f"and a grid in which this chip is sold (v5e:4x4, v5p:4x4x4)."
            ) from error
    if len(jax.devices()) < count:
        raise UserError(
            f"--topology={name} is compiled for {count} devices of this machine, which has {len(jax.devices())}; add "
            f"--config.mesh.cpu_devices={count}."
        )
    return CHIPS[chip], jax.devices()[:count]


def _plan(config: Config, shape: ModelConfig, topology: str) -> Plan:
    chip, devices = devices_of(topology)
    mesh = make_mesh(config.mesh, devices)
    shape = resolve_numerics(part(config.model, Numerics), devices[0].platform).of(shape)
    decoded = _decodings(config, shape, mesh, chip)
    programs = {"prefill prompt": _whole(_prefill_prefix, config, shape, mesh, least=PREFILL_DEPTH)}
    most = max(decoded.values(), key=lambda decoding: decoding.limits.lanes)
    programs["prefill questions"] = _whole(_prefill_questions, config, shape, mesh, most, least=PREFILL_DEPTH)
    programs |= {name: _whole(_decode, config, shape, mesh, decoding) for name, decoding in decoded.items()}
    programs["train"] = _whole(_train, config, shape, mesh)
    seconds = _seconds(config, shape, chip, mesh, programs, decoded)
    return Plan(topology, chip, len(devices), decoded["sample"].limits.lanes, programs, seconds)


def _decodings(config: Config, shape: ModelConfig, mesh: Mesh, chip: Chip) -> dict[str, Program]:
    """Return the decode programs of a run by name, with as many lanes as `stages/decode.py` chooses.

    "sample" also covers the sampled paths that evaluation votes over.
    """
    prefix, question = config.plan.prompt, -(-config.plan.question // 32) * 32
    sampling, batching = part(config.sample, Sampling), part(config.sample, Batching)
    weights = memory.weight_bytes(mesh.gathered if batching.gather else mesh, shape)
    largest, scored = memory.limits(sampling, batching, question), _scored(config)
    most = memory.budget(mesh, shape, largest, batching, prefix, weights, int(chip.memory) - weights)

    def decoded(sampling: Sampling, batching: Batching, questions: int) -> Program:
        lanes = batching.lanes or min(batching.questions_per_shard, questions)  # an upper bound if lanes = 0
        limits = memory.limits(sampling, batching, question, lanes)
        if limits != largest:
            try:
                lanes = memory.fitting_lanes(mesh, shape, limits, prefix, most, weights)
            except UserError:  # not even one lane per shard fits: the table shows by how much
                lanes = mesh.size("batch")
        return Program(shape, replace(limits, lanes=lanes), part(sampling, Truncation), (1,), engine.model_logits)

    ways = {"sample": decoded(sampling, batching, config.plan.questions)}
    if scored:
        one = batching.for_greedy(mesh.size("batch"), sampling.paths)
        ways["greedy direct"] = decoded(sampling.greedy(config.evaluate.standard_tokens), one, scored)
        ways["greedy CoT"] = decoded(sampling.greedy(sampling.max_tokens), one, scored)
    return ways


def _whole(
    compile: Callable[..., Cost], config: Config, shape: ModelConfig, mesh: Mesh, *decoding: Program, least: int = 1
) -> Cost:
    """Extrapolate a program's cost to full depth from models of at least `least` layers; it is infinite if they don't fit."""
    period = _period(shape.windows)
    first = -(-least // period) * period
    try:
        shallow = (replace(shape, layers=layers, windows=shape.windows[:layers]) for layers in (first, first + period))
        one, two = (np.array(dataclasses.astuple(compile(config, each, mesh, *decoding))) for each in shallow)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        console.print(f"Not even {first + period} of {shape.layers} layers fit: {str(error).splitlines()[0][:300]}")
        return Cost(math.inf, math.inf, math.inf)
    each = (two - one) * (1 / period)
    return Cost(*map(float, one + each * (shape.layers - first)))


def _period(windows: tuple[int, ...]) -> int:
    """Return the number of layers after which the windows repeat."""
    return next((n for n in range(1, len(windows)) if windows[n:] == windows[:-n]), 1)


def _leaf(shape: tuple[int, ...], dtype: Any, place: jax.sharding.Sharding) -> Any:
    """Return an abstract array with a sharding, to compile a program for."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _prefix(shape: ModelConfig, mesh: Mesh, tokens: int) -> Prefix:
    size = (1, shape.kv_heads, tokens, shape.head_width)
    place = sharding(mesh, None, "kv_heads", "length", "head_width")
    layer = _leaf(size, transformer.cache_dtype(shape), place)
    return Prefix([(layer, layer)] * shape.layers, _leaf((), jnp.int32, sharding(mesh)))


def _decoding_params(config: Config, shape: ModelConfig, mesh: Mesh) -> Any:
    return transformer.sharded(mesh.gathered if config.sample.gather else mesh, shape)


def _prefill_prefix(config: Config, shape: ModelConfig, mesh: Mesh) -> Cost:
    """Return the cost of prefilling the last chunk of the few-shot prompt, which attends to all chunks before it."""
    chunk = min(CHUNK, config.plan.prompt)
    with use_mesh(mesh):
        before = _prefix(shape, mesh, config.plan.prompt - chunk).cache
        tokens = _leaf((mesh.size("batch"), chunk), jnp.int32, sharding(mesh, "batch", None))
        return _cost(prefill_chunk.lower(shape, _decoding_params(config, shape, mesh), before, tokens).compile())


def _state(shape: ModelConfig, limits: Limits) -> tuple[Any, int]:
    """Return the decode state, and the bytes of the prefilled questions that are waiting for lanes."""
    start = engine.start.lower(shape, limits).compile()
    state = with_shardings(jax.eval_shape(lambda: engine.start(shape, limits)), start.output_shardings)
    return state, memory.READY * memory.bytes_on_device(state.question_cache) // engine.PER_LANE


def _prefill_questions(config: Config, shape: ModelConfig, mesh: Mesh, decoding: Program) -> Cost:
    """Return the cost of prefilling one question per lane, with the decode state in memory."""
    limits = decoding.limits
    with use_mesh(mesh):
        state, ready = _state(shape, limits)
        params, prefix = _decoding_params(config, shape, mesh), _prefix(shape, mesh, config.plan.prompt)
        tokens = _leaf((limits.lanes, limits.question), jnp.int32, sharding(mesh, "batch", None))
        length = _leaf((limits.lanes,), jnp.int32, sharding(mesh, "batch"))
        cost = _cost(prefill_questions.lower(shape, limits.question, params, prefix, tokens, length).compile())
    return replace(cost, arguments=cost.arguments + memory.bytes_on_device(state) + ready)


def _decode(config: Config, shape: ModelConfig, mesh: Mesh, decoding: Program) -> Cost:
    """Return the cost of a decode step of all lanes, with the prefilled questions in memory."""
    replicated = sharding(mesh)
    with use_mesh(mesh):
        state, ready = _state(shape, decoding.limits)
        table = _leaf((2, shape.vocab), jnp.int32, replicated)
        key = _leaf((), jax.eval_shape(lambda: jax.random.key(0)).dtype, replicated)
        params, prefix = _decoding_params(config, shape, mesh), _prefix(shape, mesh, config.plan.prompt)
        program = replace(decoding, config=shape)
        cost = _cost(engine.decode.lower(program, params, engine.Context(prefix, table, key), state).compile())
    return replace(cost, arguments=cost.arguments + ready)


def _train(config: Config, shape: ModelConfig, mesh: Mesh) -> Cost:
    """Return the cost of a fine-tuning step, including its shared prompts."""
    train, target = config.finetune, trainable(shape, config.finetune)
    state = abstract_state(mesh, target, train)  # outside `use_mesh`: optax creates small arrays, for which there is no device
    with use_mesh(mesh):
        rows = _leaf((train.batch, train.row_length), jnp.int32, sharding(mesh, "batch", "length"))
        names = ("tokens", "targets", "segments", "positions")
        each = _leaf((train.batch,), jnp.int32, sharding(mesh, "batch"))
        arrays = {**dict.fromkeys(names, rows), "weights": _leaf(rows.shape, jnp.float32, rows.sharding), "prompt": each}
        shards = mesh.size("batch")
        tokens = _leaf((-(-2 // shards) * shards, config.plan.prompt), jnp.int32, sharding(mesh, "batch", "length"))
        length = _leaf(tokens.shape[:1], jnp.int32, sharding(mesh, None))
        batch = Batch(arrays, SharedPrompts(tokens, length) if train.share_prompts else None)
        frozen = transformer.sharded(mesh, shape) if train.lora.rank else {}
        step: Any = make_step(cross_entropy(shape, train.remat, train.z_loss, train.router), target, train)
        cost = _cost(step.lower(state, batch, frozen).compile())
    start = 0 if train.lora.rank else memory.weight_bytes(mesh, shape)  # the initial parameters; with LoRA `frozen` has them
    operations = cost.operations * train.accumulate  # XLA counts a loop's body once
    return replace(cost, arguments=cost.arguments + start, operations=operations)


def _cost(compiled: Any) -> Cost:
    used, counted = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return Cost(float(used.argument_size_in_bytes), float(used.temp_size_in_bytes), float(counted.get("flops", 0.0)))


def _scored(config: Config) -> int:
    """Return the number of questions that a round scores; 0 if the config has no scored questions."""
    return config.plan.eval_questions if question_source(config.data).is_scored else 0


def _tokens(config: Config) -> float:
    """Return the average number of tokens of a path."""
    return config.plan.tokens or config.sample.max_tokens / 2


def _seconds(
    config: Config, shape: ModelConfig, chip: Chip, mesh: Mesh, programs: dict[str, Cost], decoded: dict[str, Program]
) -> dict[str, float]:
    """Return the seconds per round of sampling, prefill, scoring and fine-tuning, by program."""
    assumed, scored = config.plan, _scored(config)
    votes = scored if config.evaluate.self_consistency else 0
    # Tokens sampled by each decoding, for the training questions and the scored ones.
    tokens = {
        "sample": (assumed.questions + votes) * config.sample.paths * _tokens(config),
        "greedy direct": scored * config.evaluate.standard_tokens / 2,
        "greedy CoT": scored * _tokens(config),
    }
    passes = assumed.questions + scored * len(decoded)  # a question is prefilled once for each decoding
    operations = 2 * transformer.count_active_params(shape) * passes * assumed.question / mesh.devices.size
    rows = {name: decoding.limits.lanes * decoding.limits.slots for name, decoding in decoded.items()}
    steps = {name: tokens[name] / rows[name] for name in decoded}
    return {
        **{name: steps[name] * programs[name].seconds(chip) for name in decoded},
        "prefill questions": operations / chip.operations,
        "train": config.finetune.steps * programs["train"].seconds(chip),
    }


def _table(config: Config, plan: Plan) -> Table:
    chip, assumed = plan.chip, config.plan
    verdict = "fits" if plan.fits else f"does NOT fit: {plan.peak_bytes / chip.memory:.1f} times the memory"
    title = f"{plan.topology}: {plan.devices} devices of {chip.memory / GIB:.0f} GiB, {verdict}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "arguments GiB", "working GiB", "GFLOP/step", "s/step", "hours/round"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=not name)
    for name, cost in plan.programs.items():
        sizes = (f"{cost.arguments / GIB:.2f}", f"{cost.working / GIB:.2f}", f"{cost.operations / 1e9:,.1f}")
        hours = f"{plan.seconds[name] / 3600:.2f}" if name in plan.seconds else ""
        table.add_row(name, *sizes, f"{cost.seconds(chip):.4f}", hours)
    dollars = f", {plan.chip_hours * assumed.price:,.0f} dollars" if assumed.price else ""
    energy = f", {plan.chip_hours * assumed.watts / 1000:,.0f} kWh" if assumed.watts else ""
    stand_in = "" if plan.topology.partition(":")[0] in (*TPUS, "cpu") else CPU_STANDS_IN
    table.caption = (
        f"per device, at the roofline; {plan.lanes} lanes; a round samples "
        f"{assumed.questions * config.sample.paths * _tokens(config) / 1e6:,.0f}M tokens, scores {_scored(config):,} "
        f"questions and takes {plan.chip_hours:,.1f} chip hours{dollars}{energy}{stand_in}"
    )
    return table
