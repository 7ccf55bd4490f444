"""Generated tokens per second of the decoding engine: `python -m lmsi_jax.benchmarks.decode --workload S --rows 128 --peers`.

Workload S: 6.4M parameters, a prompt of 256 tokens. M: 110M parameters, a prompt of 512 tokens, 448 of them shared by all
questions. L, for an accelerator: the shape of Qwen2.5-0.5B in bfloat16, a prompt of 1,024 tokens, 896 of them shared. Weights
are random. Each question has 32 paths of 128 tokens, and no path ends early. Times include prefill. V: see lengths.py. Prints
one JSON line per figure: the tokens per second (median of the repeats) and their share of the roofline, which is measured in
the same run; for each other engine that is installed, its tokens per second and our speed relative to it.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time

import jax
import jax.numpy as jnp

from lmsi_jax.benchmarks import lengths, peers
from lmsi_jax.benchmarks.workloads import NEW_TOKENS, ON_CPU, PATHS, WORKLOADS, Ids, Workload, limits, prompts
from lmsi_jax.core.machine import bandwidth, matmul_peak
from lmsi_jax.decoding.config import Sampling
from lmsi_jax.decoding.scheduler import Engine
from lmsi_jax.model import transformer
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import use_mesh


def tokens_per_second(workload: Workload, rows: int, repeat: int) -> float:
    """Return the generated tokens per second of one run, whose prompts are seeded by the number `repeat`.

    The time includes prefill. It excludes compilation, as repeat 0 starts with a warm-up run.
    """
    config, mesh = workload.model, make_mesh(MeshConfig())
    with use_mesh(mesh):
        params = transformer.init_sharded(mesh, config, jax.random.key(0))
        sampling = Sampling(paths=PATHS, temperature=0.7, max_tokens=NEW_TOKENS, stops=())
        engine = Engine(mesh, config, Ids(config.vocab), limits(workload, lanes=rows // PATHS, slots=PATHS))
        for seed in (repeat, repeat + 1) if repeat == 0 else (repeat + 1,):
            few_shot, requests = prompts(workload, workload.questions, seed)
            start = time.perf_counter()
            sampled = engine.sample(params, engine.prefill(params, few_shot), requests, sampling, jax.random.key(1))
            total = sum(path.num_tokens for paths in sampled for path in paths)
            seconds = time.perf_counter() - start
    return total / seconds


def roofline(workload: Workload, rows: int, flops: float, bytes_per_second: float) -> float:
    """Return the upper bound of the tokens per second on a machine with `flops` and `bytes_per_second`.

    A decode step takes the longer of its matrix products and of reading the weights and caches: the shared prompt once, a
    question once for its paths, and the tokens of each path, half of them on average.
    """
    c = workload.model
    weights = transformer.count_params(c)  # includes the embedding, which is read as the unembedding
    context = workload.task + workload.question + NEW_TOKENS / 2
    operations = 2 * weights + 4 * c.layers * c.heads * c.head_width * context
    cached = workload.task + rows / PATHS * workload.question + rows * NEW_TOKENS / 2
    size = jnp.dtype(c.param_dtype).itemsize
    read = size * weights + 2 * c.layers * c.kv_heads * c.head_width * jnp.dtype(c.dtype).itemsize * cached
    return rows / max(rows * operations / flops, read / bytes_per_second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=[*WORKLOADS, "V"], nargs="+", default=[*ON_CPU, "V"])
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128], help=f"rows in flight, multiples of {PATHS}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of weights and products; default: the workload's")
    parser.add_argument("--peers", action="store_true", help="also measure the other engines that are installed")
    arguments = parser.parse_args()
    read = bandwidth()
    report(figure="machine", device=jax.devices()[0].device_kind, gigabytes_per_second=round(read / 1e9, 1))
    for name in arguments.workload:
        if name == "V":
            refill()
        else:
            fixed_lengths(name, arguments, read)


def fixed_lengths(name: str, arguments: argparse.Namespace, read: float) -> None:
    """Report our engine and its peers on S or M. They take turns, so that other load on the machine affects them equally."""
    workload = WORKLOADS[name]
    if arguments.dtype:
        model = dataclasses.replace(workload.model, param_dtype=arguments.dtype, dtype=arguments.dtype)
        workload = dataclasses.replace(workload, model=model)
    dtype = workload.model.dtype
    peak = matmul_peak(dtype)
    report(figure="matmul", dtype=dtype, gflops=round(peak / 1e9, 1))
    engines: dict[str, peers.Measure] = {
        f"lmsi_jax {rows} rows": functools.partial(tokens_per_second, workload, rows) for rows in arguments.rows
    }
    engines |= peers.installed(WORKLOADS[name], PATHS, NEW_TOKENS) if arguments.peers else {}
    speeds: dict[str, list[float]] = {engine: [] for engine in engines}
    for repeat in range(arguments.repeats):
        for engine, measure in engines.items():
            speeds[engine].append(measure(repeat))
    median = {engine: statistics.median(measured) for engine, measured in speeds.items()}
    best = max(speed for engine, speed in median.items() if engine.startswith("lmsi_jax"))
    for rows in arguments.rows:
        speed = median[f"lmsi_jax {rows} rows"]
        share = {"share_of_roofline": round(speed / roofline(workload, rows, peak, read), 3)}
        report(figure="decode", workload=name, rows=rows, dtype=dtype, tokens_per_second=round(speed, 1), **share)
    for engine, speed in median.items():
        if not engine.startswith("lmsi_jax"):
            report(figure="decode", workload=name, peer=engine, tokens_per_second=round(speed, 1), times=round(best / speed, 2))


def refill() -> None:
    """Report workload V: paths per second with and without refilling slots."""
    fixed, _ = lengths.paths_per_second(WORKLOADS["S"], refill=False)
    refilled, utilisation = lengths.paths_per_second(WORKLOADS["S"], refill=True)
    speeds = {"paths_per_second": round(refilled, 1), "without_refill": round(fixed, 1)}
    report(figure="refill", workload="V", **speeds, times=round(refilled / fixed, 2), utilisation=round(utilisation, 3))


def report(**figure: object) -> None:
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
