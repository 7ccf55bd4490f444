"""What a run takes on devices that are not here: the real programs, compiled ahead of time for a topology.

Two shallow models of the config's shape are compiled; what a layer adds is the difference, and the whole model is the first
plus as many such layers as it has more. That is exact for what scales with the layers, as memory and operations do.
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

from lmsi_jax import model
from lmsi_jax.checkpoint import folder
from lmsi_jax.core.config import Config, ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import CHIPS, GIB, TPUS, Chip
from lmsi_jax.core.presets import preset
from lmsi_jax.core.progress import console
from lmsi_jax.decoding import engine, memory
from lmsi_jax.decoding.prefill import CHUNK, Prompt, prefill_chunk, prefill_questions
from lmsi_jax.sharding import Mesh, make_mesh, param_shardings, sharding, use_mesh
from lmsi_jax.tasks.registry import is_scored
from lmsi_jax.training.step import SharedPrompts, abstract_state, make_step

CPU_STANDS_IN = "; the compiler of the CPU stands in for the GPU's, with caches in float32: memory is an upper estimate"

PREFILL_DEPTH = 3  # layers to compile at least: of its last layer prefill computes keys and values alone


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one program on one device."""

    arguments: float  # bytes
    working: float  # bytes of temporaries
    operations: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(a * times for a in dataclasses.astuple(self)))

    @property
    def memory(self) -> float:
        return self.arguments + self.working

    def seconds(self, chip: Chip) -> float:
        """At the roofline: its operations, or its arguments read once, whichever take longer."""
        return max(self.operations / chip.operations, self.arguments / chip.bandwidth)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a topology makes of a config."""

    topology: str
    chip: Chip
    devices: int
    lanes: int
    programs: dict[str, Cost]  # those of decoding and training are of one step
    seconds: dict[str, float]  # of a round by program, at the roofline

    @property
    def most(self) -> float:
        """Bytes that a device holds at once."""
        return max(cost.memory for cost in self.programs.values())

    @property
    def fits(self) -> bool:
        return self.most <= self.chip.memory

    @property
    def chip_hours(self) -> float:
        return sum(self.seconds.values()) * self.devices / 3600


def plan(config: Config, topologies: list[str]) -> int:
    """Print a table for each topology, and which of those that fit takes the fewest chip hours; 1 if none fits."""
    shape = model_shape(config)
    plans = [_plan(config, shape, name) for name in topologies]
    for each in plans:
        console.print(_table(config, each))
    fitting = [each for each in plans if each.fits]
    if not fitting:
        console.print(
            "None of these fits. More devices, --config.mesh.fsdp, .tensor, --config.finetune.remat=full or fewer lanes."
        )
        return 1
    best = min(fitting, key=lambda each: each.chip_hours)
    if len(plans) > 1:
        console.print(f"The cheapest that fits: {best.topology}, {best.chip_hours:,.1f} chip hours a round.")
    return 0


def model_shape(config: Config) -> ModelConfig:
    """The architecture to plan for: a preset by name, or a checkpoint's."""
    shape = preset(config.plan.preset) if config.plan.preset else folder.load_config(config.model.checkpoint)
    dtype = config.model.dtype
    if config.plan.preset:  # as it would be stored and computed with
        shape = replace(shape, param_dtype="bfloat16", dtype="bfloat16")
    return shape if dtype == "stored" else replace(shape, dtype=dtype)


def devices_of(name: str) -> tuple[Chip, list[Any]]:
    """The chip and the devices of a topology such as v5e:4x4, h100:8 or cpu:8; no such device has to be here."""
    kind, _, size = name.partition(":")
    if kind not in CHIPS or not size or not all(part.isdigit() for part in size.split("x")):
        raise UserError(
            f"--topology={name}: write a chip and a number or a grid, such as v5e:4x4, v5p:8x8x8 or h100:8. Chips: "
            f"{', '.join(CHIPS)}."
        )
    if kind in TPUS:
        from jax.experimental import topologies

        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        jax.config.update("jax_enable_compilation_cache", False)  # nothing here could read the programs back
        try:
            return CHIPS[kind], list(topologies.get_topology_desc(name, "tpu").devices)
        except Exception as error:
            raise UserError(
                f"--topology={name} cannot be described here: {str(error).splitlines()[0][:300]}. `pip install libtpu` is "
                f"needed, and the grid must be one that this chip is sold in (v5e:4x4, v5p:4x4x4)."
            ) from error
    count = int(np.prod([int(part) for part in size.split("x")]))
    if len(jax.devices()) < count:
        raise UserError(
            f"--topology={name} is planned for on {count} devices of this machine, which shows {len(jax.devices())}; add "
            f"--config.mesh.cpu_devices={count}."
        )
    return CHIPS[kind], jax.devices()[:count]


def _plan(config: Config, shape: ModelConfig, topology: str) -> Plan:
    chip, devices = devices_of(topology)
    mesh = make_mesh(config.mesh, devices)
    decoded = _decodings(config, shape, mesh, chip)
    programs = {"prefill prompt": _whole(_prefill_prompt, config, shape, mesh, least=PREFILL_DEPTH)}
    most = max(decoded.values(), key=lambda decoding: decoding.lanes)
    programs["prefill questions"] = _whole(_prefill_questions, config, shape, mesh, most, least=PREFILL_DEPTH)
    programs |= {name: _whole(_decode, config, shape, mesh, decoding) for name, decoding in decoded.items()}
    programs["train"] = _whole(_train, config, shape, mesh)
    seconds = _seconds(config, shape, chip, mesh, programs, decoded)
    return Plan(topology, chip, len(devices), decoded["sample"].lanes, programs, seconds)


def _decodings(config: Config, shape: ModelConfig, mesh: Mesh, chip: Chip) -> dict[str, memory.Shape]:
    """What a run decodes, and how much of it at a time: as `pipeline/decode.py` chooses it. Sampling scores by votes too."""
    sample, prompt, question = config.sample, config.plan.prompt, -(-config.plan.question // 32) * 32
    weights = memory.stored(mesh.gathered if sample.gather else mesh, shape)
    most = memory.budget(mesh, shape, sample, prompt, question, weights, int(chip.memory) - weights)
    shard, scored = sample.questions_per_shard, _scored(config)  # lanes that are left open are as many as fit of a shard
    lanes = sample.lanes or min(shard, config.plan.questions)
    decoded = {"sample": memory.sampling_shape(sample, lanes, prompt, question)}
    if scored:
        lanes = memory.greedy_lanes(sample, mesh.size("batch")) or min(shard * sample.paths, scored)
        for name, tokens in (("greedy direct", config.evaluate.standard_tokens), ("greedy CoT", sample.max_tokens)):
            decoded[name] = memory.Shape(lanes, 1, 1, tokens, prompt, question)

    def bounded(asked: memory.Shape) -> memory.Shape:
        if asked == memory.sampling_shape(sample, sample.lanes, prompt, question):
            return asked
        try:
            return replace(asked, lanes=memory.fitting_lanes(mesh, shape, asked, most, weights))
        except UserError:  # not even one lane on each part of the devices fits: the table says by how much
            return replace(asked, lanes=mesh.size("batch"))

    return {name: bounded(asked) for name, asked in decoded.items()}


def _whole(
    compile: Callable[..., Cost], config: Config, shape: ModelConfig, mesh: Mesh, *decoding: memory.Shape, least: int = 1
) -> Cost:
    """The cost of a program at full depth, from two shallow ones of at least `least` layers; infinite where they do not fit."""
    period = _period(shape.windows)
    first = -(-least // period) * period
    try:
        one, two = (compile(config, _cut(shape, layers), mesh, *decoding) for layers in (first, first + period))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        console.print(f"Not even {first + period} of {shape.layers} layers: {str(error).splitlines()[0][:300]}")
        return Cost(math.inf, math.inf, math.inf)
    each = (two + one * -1.0) * (1 / period)
    return one + each * float(shape.layers - first)


def _period(windows: tuple[int, ...]) -> int:
    """After how many layers their windows repeat."""
    return next((n for n in range(1, len(windows)) if windows[n:] == windows[:-n]), 1)


def _cut(shape: ModelConfig, layers: int) -> ModelConfig:
    return replace(shape, layers=layers, windows=shape.windows[:layers])


def _leaf(shape: tuple[int, ...], dtype: Any, place: jax.sharding.Sharding) -> Any:
    """An array that is not there: what a program is compiled for in its place."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _described(values: Any, places: Any) -> Any:
    """Shapes with shardings, as a program is compiled for."""
    return jax.tree.map(lambda v, place: _leaf(v.shape, v.dtype, place), values, places)


def _params(shape: ModelConfig, mesh: Mesh) -> Any:
    shapes, axes = model.abstract(shape)
    return _described(shapes, param_shardings(mesh, shapes, axes))


def _prompt(config: Config, shape: ModelConfig, mesh: Mesh, tokens: int) -> Prompt:
    size = (1, shape.kv_heads, tokens, shape.head_width)
    place = sharding(mesh, None, "kv_heads", "length", "head_width")
    layer = _leaf(size, model.cache_dtype(shape), place)
    return Prompt([(layer, layer)] * shape.layers, _leaf((), jnp.int32, sharding(mesh)))


def _decoding_params(config: Config, shape: ModelConfig, mesh: Mesh) -> Any:
    return _params(shape, mesh.gathered if config.sample.gather else mesh)


def _prefill_prompt(config: Config, shape: ModelConfig, mesh: Mesh) -> Cost:
    """The last chunk of the few-shot prompt, which attends to all those before it."""
    chunk = min(CHUNK, config.plan.prompt)
    with use_mesh(mesh):
        before = _prompt(config, shape, mesh, config.plan.prompt - chunk).cache
        tokens = _leaf((mesh.size("batch"), chunk), jnp.int32, sharding(mesh, "batch", None))
        return _cost(prefill_chunk.lower(shape, _decoding_params(config, shape, mesh), before, tokens).compile())


def _state(config: Config, shape: ModelConfig, mesh: Mesh, decoding: memory.Shape) -> tuple[engine.Settings, Any, int]:
    """What decoding compiles with, its state, and the bytes of the questions that are prefilled and wait beside it."""
    sample = config.sample
    cut = (sample.top_k, sample.top_p) if decoding.paths > 1 else (0, 1.0)
    settings = engine.Settings(
        decoding.paths, decoding.max_tokens, decoding.lanes, decoding.slots, sample.sync_every, *cut, ends=(1,), matched=1
    )
    start = engine.start.lower(shape, settings, decoding.question).compile()
    state = _described(jax.eval_shape(lambda: engine.start(shape, settings, decoding.question)), start.output_shardings)
    return settings, state, memory.READY * _bytes(state.questions) // engine.HELD


def _bytes(tree: Any) -> int:
    """Of a device, for arrays that are described with their shardings."""
    return sum(memory.on_device(leaf, leaf.sharding) for leaf in jax.tree.leaves(tree))


def _prefill_questions(config: Config, shape: ModelConfig, mesh: Mesh, decoding: memory.Shape) -> Cost:
    """A batch of as many questions as there are lanes, while the state of decoding is there."""
    with use_mesh(mesh):
        _, state, ready = _state(config, shape, mesh, decoding)
        params, prompt = _decoding_params(config, shape, mesh), _prompt(config, shape, mesh, decoding.prompt)
        tokens = _leaf((decoding.lanes, decoding.question), jnp.int32, sharding(mesh, "batch", None))
        length = _leaf((decoding.lanes,), jnp.int32, sharding(mesh, "batch"))
        cost = _cost(prefill_questions.lower(shape, decoding.question, params, prompt, tokens, length).compile())
    return replace(cost, arguments=cost.arguments + _bytes(state) + ready)


def _decode(config: Config, shape: ModelConfig, mesh: Mesh, decoding: memory.Shape) -> Cost:
    """A decode step of all lanes, with prefilled questions beside it."""
    everywhere = sharding(mesh)
    with use_mesh(mesh):
        settings, state, ready = _state(config, shape, mesh, decoding)
        table = _leaf((2, shape.vocab), jnp.int32, everywhere)
        key = jax.eval_shape(lambda: jax.random.key(0))
        key, heat = (_leaf((), dtype, everywhere) for dtype in (key.dtype, jnp.float32))
        params, prompt = _decoding_params(config, shape, mesh), _prompt(config, shape, mesh, decoding.prompt)
        cost = _cost(engine.decode.lower(shape, settings, params, engine.Task(prompt, table, key, heat), state).compile())
    return replace(cost, arguments=cost.arguments + ready)


def _train(config: Config, shape: ModelConfig, mesh: Mesh) -> Cost:
    """A step of fine-tuning, its shared prompts included."""
    train = config.finetune
    state = abstract_state(mesh, shape, train)  # outside of the mesh: optax makes small arrays, for which there is no device
    with use_mesh(mesh):
        rows = _leaf((train.batch, train.row_length), jnp.int32, sharding(mesh, "batch", "length"))
        names = ("tokens", "targets", "segments", "positions")
        each = _leaf((train.batch,), jnp.int32, sharding(mesh, "batch"))
        batch = {**dict.fromkeys(names, rows), "weights": _leaf(rows.shape, jnp.float32, rows.sharding)}
        batch["prompt"] = each
        parts = mesh.size("batch")
        tokens = _leaf((-(-2 // parts) * parts, config.plan.prompt), jnp.int32, sharding(mesh, "batch", "length"))
        length = _leaf(tokens.shape[:1], jnp.int32, sharding(mesh, None))
        prompts = SharedPrompts(tokens, length) if train.share_prompts else None
        frozen = _params(shape, mesh) if train.lora.rank else {}
        step: Any = make_step(shape, train)
        cost = _cost(step.lower(state, batch, frozen, prompts).compile())
    start = 0 if train.lora.rank else memory.stored(mesh, shape)  # what training starts from is kept; adapters read it
    operations = cost.operations * train.accumulate  # a loop's body is counted once
    return replace(cost, arguments=cost.arguments + start, operations=operations)


def _cost(compiled: Any) -> Cost:
    memory, counted = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return Cost(float(memory.argument_size_in_bytes), float(memory.temp_size_in_bytes), float(counted.get("flops", 0.0)))


def _scored(config: Config) -> int:
    """Questions that a round scores; none where the config names none."""
    return config.plan.eval_questions if is_scored(config.data) else 0


def _tokens(config: Config) -> float:
    """Tokens of a path on average."""
    return config.plan.tokens or config.sample.max_tokens / 2


def _seconds(
    config: Config,
    shape: ModelConfig,
    chip: Chip,
    mesh: Mesh,
    programs: dict[str, Cost],
    decoded: dict[str, memory.Shape],
) -> dict[str, float]:
    """A round's sampling, prefill, scoring and fine-tuning, by program."""
    assumed, scored = config.plan, _scored(config)
    votes = scored if config.evaluate.self_consistency else 0
    # Tokens of each: those of the questions trained on, and of those scored.
    drawn = {
        "sample": (assumed.questions + votes) * config.sample.paths * _tokens(config),
        "greedy direct": scored * config.evaluate.standard_tokens / 2,
        "greedy CoT": scored * _tokens(config),
    }
    passes = assumed.questions + scored * len(decoded)  # a question is prefilled for each way of decoding it
    operations = 2 * model.count_params(shape) * passes * assumed.question / mesh.devices.size
    steps = {name: drawn[name] / (decoding.lanes * decoding.slots) for name, decoding in decoded.items()}
    return {
        **{name: steps[name] * programs[name].seconds(chip) for name in decoded},
        "prefill questions": operations / chip.operations,
        "train": config.finetune.steps * programs["train"].seconds(chip),
    }


def _table(config: Config, plan: Plan) -> Table:
    chip, assumed = plan.chip, config.plan
    verdict = "fits" if plan.fits else f"does NOT fit: {plan.most / chip.memory:.1f} times the memory"
    title = f"{plan.topology}: {plan.devices} devices of {chip.memory / GIB:.0f} GiB, {verdict}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "arguments GiB", "working GiB", "GFLOP a step", "s a step", "hours a round"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=not name)
    for name in dict.fromkeys([*plan.programs, *plan.seconds]):
        cost, spent = plan.programs.get(name), plan.seconds.get(name)
        sizes = (
            (f"{cost.arguments / GIB:.2f}", f"{cost.working / GIB:.2f}", f"{cost.operations / 1e9:,.1f}") if cost else ("",) * 3
        )
        step = f"{cost.seconds(chip):.4f}" if cost else ""
        table.add_row(name, *sizes, step, "" if spent is None else f"{spent / 3600:.2f}")
    dollars = f", {plan.chip_hours * assumed.price:,.0f} dollars" if assumed.price else ""
    energy = f", {plan.chip_hours * assumed.watts / 1000:,.0f} kWh" if assumed.watts else ""
    stand_in = "" if plan.topology.partition(":")[0] in (*TPUS, "cpu") else CPU_STANDS_IN
    table.caption = (
        f"a device, at the roofline; {plan.lanes} lanes; a round samples "
        f"{assumed.questions * config.sample.paths * _tokens(config) / 1e6:,.0f}M tokens, scores {_scored(config):,} "
        f"questions and takes {plan.chip_hours:,.1f} chip hours{dollars}{energy}{stand_in}"
    )
    return table
