"""What one device does, in under nine minutes: `python -m lmsi_jax.benchmarks.accelerator --output=FILE.md`.

Measures, with random weights: the logits of a small model against a CPU; decoding at 32, 128 and 512 rows, as tokens per second
and as a share of the roofline that is measured in the same run; a training step on the paper's mixture, as model FLOPs
utilisation; a step of reinforcement learning; and the memory of decoding, planned and used. Models are of the shapes of
Qwen2.5-0.5B and -1.5B in bfloat16 on an accelerator, and those of the workloads S and M in float32 on a CPU. Prints one JSON
line per figure, and writes a Markdown table. What would begin after `--seconds` is left out, and said to be.
"""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lmsi_jax.benchmarks import decode, rl_step, train_step
from lmsi_jax.benchmarks.workloads import PATHS, WORKLOADS, Workload, limits
from lmsi_jax.core.machine import GIB, bandwidth, matmul_peak
from lmsi_jax.decoding import memory
from lmsi_jax.formatting.packing import pack
from lmsi_jax.model import transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.model.presets import preset
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages.finetune import work
from lmsi_jax.training.config import TrainConfig

SECONDS = 480.0  # after which no measurement begins
LARGER = dataclasses.replace(
    WORKLOADS["L"], model=dataclasses.replace(preset("qwen2.5-1.5b"), param_dtype="bfloat16", dtype="bfloat16")
)
SHAPES = {  # by platform: workloads, rows in flight, and rows of the mixture in a training step
    "cpu": ({"6.4M": WORKLOADS["S"], "110M": WORKLOADS["M"]}, (32, 128), 32),
    "accelerator": ({"0.5B": WORKLOADS["L"], "1.5B": LARGER}, (32, 128, 512), 192),
}
Figure = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Device:
    """The rates of this machine that figures are compared with."""

    name: str
    operations: float  # per second, in the dtype of the workloads
    bandwidth: float  # bytes per second


def measured_device(dtype: str) -> Device:
    """Measure the rates of the first device."""
    return Device(jax.devices()[0].device_kind, matmul_peak(dtype), bandwidth())


def logits_difference(workload: Workload) -> Figure:
    """Return the largest difference of a log-probability from that of the CPU in float32, by the dtype of the products."""
    tokens = np.random.default_rng(0).integers(0, workload.model.vocab, (2, 64)).astype(np.int32)

    def log_probs(dtype: Literal["float32", "bfloat16"], devices: list[jax.Device]) -> np.ndarray:
        config = dataclasses.replace(workload.model, dtype=dtype, param_dtype="float32")
        with use_mesh(mesh := make_mesh(MeshConfig(data=1), devices)):
            params = transformer.init_sharded(mesh, config, jax.random.key(0))
            run = jax.jit(lambda p, t: jax.nn.log_softmax(transformer.forward(config, p, t, *causal(*t.shape))[0]))
            return np.asarray(run(params, jnp.asarray(tokens)), np.float32)

    with jax.default_matmul_precision("float32"):
        reference, exact = (log_probs("float32", jax.devices(kind)[:1]) for kind in ("cpu", jax.default_backend()))
    rounded = log_probs("bfloat16", jax.devices()[:1])
    return {"float32": float(np.abs(exact - reference).max()), "bfloat16": float(np.abs(rounded - reference).max())}


def decoding(workload: Workload, rows: int, device: Device) -> Figure:
    """Return the speed of decoding, its share of the roofline, and the memory that was planned for it and used."""
    speed = decode.tokens_per_second(workload, rows, 0)
    mesh = make_mesh(MeshConfig())
    with use_mesh(mesh):
        planned = memory.estimate(mesh, workload.model, limits(workload, rows // PATHS, PATHS), workload.task)
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "tokens_per_second": round(speed, 1),
        "share_of_roofline": round(speed / decode.roofline(workload, rows, device.operations, device.bandwidth), 3),
        "planned_gib": round(planned.total / GIB, 2),
        "peak_gib_so_far": None if used is None else round(used / GIB, 2),
    }


def training(workload: Workload, examples: int, device: Device) -> Figure:
    """Return the speed of a training step on the paper's mixture, and its model FLOPs utilisation."""
    pieces = train_step.mixture(workload.model, examples)
    on_cpu = jax.default_backend() == "cpu"
    rows = pack(pieces, 320 if on_cpu else 2048, True)
    batch, length = rows.tokens.shape
    train = TrainConfig(batch=batch, row_length=length, accumulate=1 if on_cpu else batch, remat="none" if on_cpu else "full")
    spent = train_step.seconds_per_step(workload.model, rows, train, 3)
    flops = work(workload.model, train, rows).flops
    return {"rows_per_second": round(examples / spent, 2), "mfu": round(flops / spent / device.operations, 3)}


def reinforcement(workload: Workload) -> Figure:
    """Return the seconds of a step of the RL loop, and the share of them that sampling and training alone would take."""
    whole, sampled, trained = rl_step.measure(workload, 3)
    tokens = rl_step.QUESTIONS * rl_step.PATHS * rl_step.TOKENS
    share = round((sampled + trained) / whole, 3)
    return {"seconds": round(whole, 2), "tokens_per_second": round(tokens / whole), "share_alone": share}


def measurements(device: Device) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield a name and a measurement for each figure, the most telling ones first."""
    workloads, rows, examples = SHAPES["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    first = next(iter(workloads.values()))
    yield "logits against a CPU, largest difference in nats", functools.partial(logits_difference, WORKLOADS["S"])
    for name, workload in workloads.items():
        for count in rows:
            yield f"decoding {name}, {count} rows", functools.partial(decoding, workload, count, device)
        yield f"training {name}", functools.partial(training, workload, examples, device)
    yield "a step of reinforcement learning", functools.partial(reinforcement, first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="a Markdown file for the table")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which no measurement begins")
    arguments = parser.parse_args()
    start, rows = time.perf_counter(), list[tuple[str, Figure]]()
    device = measured_device("float32" if jax.default_backend() == "cpu" else "bfloat16")
    rates = {"matmul_tflops": round(device.operations / 1e12, 3), "gigabytes_per_second": round(device.bandwidth / 1e9, 1)}
    decode.report(figure="machine", device=device.name, **rates)
    for name, measure in measurements(device):
        if time.perf_counter() - start > arguments.seconds:
            found: Figure = {"left_out": f"{arguments.seconds:.0f} s were over"}
        else:
            try:
                found = measure()
            except (jax.errors.JaxRuntimeError, MemoryError) as error:  # such as memory that is exhausted; the others go on
                found = {"failed": str(error).partition("\n")[0][:200]}
        rows.append((name, found))
        decode.report(figure=name, **found)
    if arguments.output:
        Path(arguments.output).write_text(table(device, rates, rows))


def table(device: Device, rates: Figure, rows: list[tuple[str, Figure]]) -> str:
    """Return the figures as Markdown."""
    about = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in rates.items())
    lines = [f"| {device.name}, jax {jax.__version__}: {about} | |", "|---|---|"]
    for name, found in rows:
        cells = ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in found.items() if value is not None)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 1 else f"{value:,}"


if __name__ == "__main__":
    main()
