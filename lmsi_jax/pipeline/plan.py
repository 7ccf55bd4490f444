"""What a run takes on devices that are not here: the real programs, compiled ahead of time for a topology.

Two shallow models of the config's shape are compiled; what a layer adds is the difference, and the whole model is the first
plus as many such layers as it has more. That is exact for what scales with the layers, as memory and operations do.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from lmsi_jax import model
from lmsi_jax.checkpoint import folder
from lmsi_jax.core.config import Config, ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.machine import CHIPS, GIB, TPUS, Chip
from lmsi_jax.core.presets import preset
from lmsi_jax.core.progress import console
from lmsi_jax.decoding import engine, memory
from lmsi_jax.decoding.prefill import Prompt, prefill_questions
from lmsi_jax.sharding import Mesh, make_mesh, param_shardings, sharding, use_mesh
from lmsi_jax.training.step import SharedPrompts, abstract_state, make_step


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
    programs: dict[str, Cost]  # decode and train are of one step
    seconds: dict[str, float]  # of a round, at the roofline

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
    for found in plans:
        console.print(_table(config, found))
    fitting = [found for found in plans if found.fits]
    if not fitting:
        console.print(
            "None of these fits. More devices, --config.mesh.fsdp, .tensor, --config.finetune.remat=full or fewer lanes."
        )
        return 1
    best = min(fitting, key=lambda found: found.chip_hours)
    if len(plans) > 1:
        console.print(f"The cheapest that fits: {best.topology}, {best.chip_hours:,.1f} chip hours a round.")
    return 0


def model_shape(config: Config) -> ModelConfig:
    """The architecture to plan for: a preset by name, or a checkpoint's."""
    shape = preset(config.plan.preset) if config.plan.preset else folder.load_config(config.model.checkpoint)
    dtype = config.model.dtype
    if config.plan.preset:  # as it would be stored and computed with
        shape = dataclasses.replace(shape, param_dtype="bfloat16", dtype="bfloat16")
    return shape if dtype == "stored" else dataclasses.replace(shape, dtype=dtype)


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
    programs = {name: _whole(compile, config, shape, mesh) for name, compile in {"decode": _decode, "train": _train}.items()}
    return Plan(topology, chip, len(devices), programs, _seconds(config, shape, chip, mesh, programs))


def _whole(compile: Callable[[Config, ModelConfig, Mesh], Cost], config: Config, shape: ModelConfig, mesh: Mesh) -> Cost:
    """The cost of a program at full depth, from two shallow ones; without bound where not even those fit."""
    period = _period(shape.windows)
    try:
        one, two = (compile(config, _cut(shape, layers), mesh) for layers in (period, 2 * period))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        console.print(f"Not even {2 * period} of {shape.layers} layers: {str(error).splitlines()[0][:300]}")
        return Cost(math.inf, math.inf, math.inf)
    each = (two + one * -1.0) * (1 / period)
    return one + each * float(shape.layers - period)


def _period(windows: tuple[int, ...]) -> int:
    """After how many layers their windows repeat."""
    return next((n for n in range(1, len(windows)) if windows[n:] == windows[:-n]), 1)


def _cut(shape: ModelConfig, layers: int) -> ModelConfig:
    return dataclasses.replace(shape, layers=layers, windows=shape.windows[:layers])


def _leaf(shape: tuple[int, ...], dtype: Any, place: jax.sharding.Sharding) -> Any:
    """An array that is not there: what a program is compiled for in its place."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _described(values: Any, places: Any) -> Any:
    """Shapes with shardings, as a program is compiled for."""
    return jax.tree.map(lambda v, place: _leaf(v.shape, v.dtype, place), values, places)


def _params(shape: ModelConfig, mesh: Mesh) -> Any:
    shapes, axes = model.abstract(shape)
    return _described(shapes, param_shardings(mesh, shapes, axes))


def _prompt(config: Config, shape: ModelConfig, mesh: Mesh) -> Prompt:
    size = (1, shape.kv_heads, config.plan.prompt, shape.head_width)
    place = sharding(mesh, None, "kv_heads", "length", "head_width")
    layer = _leaf(size, model.cache_dtype(shape), place)
    return Prompt([(layer, layer)] * shape.layers, _leaf((), jnp.int32, sharding(mesh)))


def _decode(config: Config, shape: ModelConfig, mesh: Mesh) -> Cost:
    """A decode step of all lanes, with the prefill of as many questions beside it."""
    sample, question = config.sample, -(-config.plan.question // 32) * 32
    settings = engine.Settings(
        sample.paths, sample.max_tokens, sample.lanes, min(sample.slots, sample.paths), sample.sync_every, sample.top_k,
        sample.top_p, ends=(1,), matched=1,
    )  # fmt: skip
    everywhere = sharding(mesh)
    with use_mesh(mesh):
        start = engine.start.lower(shape, settings, question).compile()
        state = _described(jax.eval_shape(lambda: engine.start(shape, settings, question)), start.output_shardings)
        table = _leaf((2, shape.vocab), jnp.int32, everywhere)
        key = jax.eval_shape(lambda: jax.random.key(0))
        key, heat = (_leaf((), dtype, everywhere) for dtype in (key.dtype, jnp.float32))
        params = _params(shape, mesh.gathered if sample.gather else mesh)
        prompt = _prompt(config, shape, mesh)
        step = engine.decode.lower(shape, settings, params, engine.Task(prompt, table, key, heat), state).compile()
        tokens = _leaf((sample.lanes, question), jnp.int32, sharding(mesh, "batch", None))
        length = _leaf((sample.lanes,), jnp.int32, sharding(mesh, "batch"))
        prefill = prefill_questions.lower(shape, question, params, prompt, tokens, length).compile()
    analysis: Any = prefill.memory_analysis()
    ready = memory.READY * analysis.output_size_in_bytes
    cost = _cost(step)
    return Cost(cost.arguments + ready, max(cost.working, _cost(prefill).working), cost.operations)


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
        return dataclasses.replace(cost, operations=cost.operations * train.accumulate)  # a loop's body is counted once


def _cost(compiled: Any) -> Cost:
    said, counted = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return Cost(float(said.argument_size_in_bytes), float(said.temp_size_in_bytes), float(counted.get("flops", 0.0)))


def _tokens(config: Config) -> float:
    """Tokens drawn in a round."""
    return config.plan.questions * config.sample.paths * (config.plan.tokens or config.sample.max_tokens / 2)


def _seconds(config: Config, shape: ModelConfig, chip: Chip, mesh: Mesh, programs: dict[str, Cost]) -> dict[str, float]:
    """A round's sampling, prefill and fine-tuning."""
    sample, assumed = config.sample, config.plan
    steps = _tokens(config) / (sample.lanes * min(sample.slots, sample.paths))
    operations = 2 * model.count_params(shape) * assumed.questions * assumed.question / mesh.devices.size
    return {
        "sample": steps * programs["decode"].seconds(chip),
        "prefill": operations / chip.operations,
        "finetune": config.finetune.steps * programs["train"].seconds(chip),
    }


def _table(config: Config, found: Plan) -> Table:
    chip, assumed = found.chip, config.plan
    verdict = "fits" if found.fits else f"does NOT fit: {found.most / chip.memory:.1f} times the memory"
    table = Table(title=f"{found.topology}: {found.devices} devices of {chip.memory / GIB:.0f} GiB, {verdict}")
    for name in ("", "arguments GiB", "working GiB", "GFLOP a step", "seconds a step", "hours a round"):
        table.add_column(name, justify="left" if not name else "right")
    for name, cost in found.programs.items():
        hours = found.seconds["sample" if name == "decode" else "finetune"] / 3600
        sizes = (f"{cost.arguments / GIB:.2f}", f"{cost.working / GIB:.2f}")
        table.add_row(name, *sizes, f"{cost.operations / 1e9:,.1f}", f"{cost.seconds(chip):.4f}", f"{hours:.2f}")
    table.add_row("prefill", "", "", "", "", f"{found.seconds['prefill'] / 3600:.2f}")
    dollars = f", {found.chip_hours * assumed.price:,.0f} dollars" if assumed.price else ""
    energy = f", {found.chip_hours * assumed.watts / 1000:,.0f} kWh" if assumed.watts else ""
    table.caption = (
        f"a device, at the roofline; a round draws {_tokens(config) / 1e6:,.0f}M tokens and takes "
        f"{found.chip_hours:,.1f} chip hours{dollars}{energy}"
    )
    return table
