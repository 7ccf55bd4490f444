"""Generated tokens a second of the decoding engine: `python -m lmsi_jax.benchmarks.decode --workload S --rows 128 --peers`.

Random weights; every path runs to its full length. S: 6.4M parameters, a prompt of 256 tokens. M: 110M parameters, a prompt
of 512 tokens of which 448 are the task's. 32 paths of 128 tokens a question, the prompt's computation included. V: see
lengths.py. One JSON line a figure: tokens a second (median of the repeats), and their share of the roofline that is measured
in the same run; for each other engine that is installed, its speed and how many times as fast ours is.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time

import jax

from lmsi_jax import model
from lmsi_jax.benchmarks import lengths, peers
from lmsi_jax.benchmarks.workloads import NEW_TOKENS, PATHS, WORKLOADS, Ids, Workload, prompts
from lmsi_jax.core.config import MeshConfig
from lmsi_jax.core.machine import bandwidth, matmul_peak
from lmsi_jax.decoding.scheduler import Decoder, Decoding
from lmsi_jax.sharding import make_mesh, param_shardings, use_mesh


def tokens_per_second(workload: Workload, rows: int, repeat: int) -> float:
    """Generated tokens a second, prefill included; compilation not, which a first run before takes care of."""
    config, mesh = workload.model, make_mesh(MeshConfig())
    with use_mesh(mesh):
        shardings = param_shardings(mesh, *model.abstract(config))
        params = jax.jit(lambda key: model.init(config, key), out_shardings=shardings)(jax.random.key(0))
        decoding = Decoding(PATHS, 0.7, NEW_TOKENS, lanes=rows // PATHS, slots=PATHS)
        for seed in (repeat, repeat + 1) if repeat == 0 else (repeat + 1,):
            few_shot, requests = prompts(workload, workload.questions, seed)
            start = time.perf_counter()
            decoder = Decoder(mesh, config, params, Ids(config.vocab), decoding, few_shot, workload.question, jax.random.key(1))
            total = sum(path.num_tokens for paths in decoder.run(requests) for path in paths)
            seconds = time.perf_counter() - start
    return total / seconds


def roofline(workload: Workload, rows: int, flops: float, bytes_per_second: float) -> float:
    """The most tokens a second: of a step's products at `flops` and its weights read at `bytes_per_second`, the longer."""
    c = workload.model
    weights = model.count_params(c)  # the embedding is read as the unembedding
    seen = workload.task + workload.question + NEW_TOKENS / 2
    operations = 2 * weights + 4 * c.layers * c.heads * c.head_width * seen
    return rows / max(rows * operations / flops, 4 * weights / bytes_per_second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=[*WORKLOADS, "V"], nargs="+", default=[*WORKLOADS, "V"])
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128], help=f"rows in flight, multiples of {PATHS}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--peers", action="store_true", help="measure other engines too, those that are installed")
    arguments = parser.parse_args()
    peak, read = matmul_peak(), bandwidth()
    report(figure="machine", gflops=round(peak / 1e9, 1), gigabytes_per_second=round(read / 1e9, 1))
    for name in arguments.workload:
        if name == "V":
            refill()
        else:
            fixed_lengths(name, arguments, peak, read)


def fixed_lengths(name: str, arguments: argparse.Namespace, peak: float, read: float) -> None:
    """Our engine and its peers on S or M, in turn, so that what else the machine does meets them alike."""
    workload = dataclasses.replace(WORKLOADS[name], model=dataclasses.replace(WORKLOADS[name].model, dtype=arguments.dtype))
    engines: dict[str, peers.Measure] = {
        f"lmsi_jax {rows} rows": functools.partial(tokens_per_second, workload, rows) for rows in arguments.rows
    }
    engines |= peers.installed(WORKLOADS[name], PATHS, NEW_TOKENS) if arguments.peers else {}
    speeds: dict[str, list[float]] = {engine: [] for engine in engines}
    for repeat in range(arguments.repeats):
        for engine, measure in engines.items():
            speeds[engine].append(measure(repeat))
    median = {engine: statistics.median(found) for engine, found in speeds.items()}
    best = max(speed for engine, speed in median.items() if engine.startswith("lmsi_jax"))
    for rows in arguments.rows:
        speed = median[f"lmsi_jax {rows} rows"]
        share = {"share_of_roofline": round(speed / roofline(workload, rows, peak, read), 3)}
        report(figure="decode", workload=name, rows=rows, dtype=arguments.dtype, tokens_per_second=round(speed, 1), **share)
    for engine, speed in median.items():
        if not engine.startswith("lmsi_jax"):
            report(figure="decode", workload=name, peer=engine, tokens_per_second=round(speed, 1), times=round(best / speed, 2))


def refill() -> None:
    """Workload V: paths a second with refilled slots and without."""
    fixed, _ = lengths.paths_per_second(WORKLOADS["S"], refill=False)
    refilled, utilisation = lengths.paths_per_second(WORKLOADS["S"], refill=True)
    speeds = {"paths_per_second": round(refilled, 1), "without_refill": round(fixed, 1)}
    report(figure="refill", workload="V", **speeds, times=round(refilled / fixed, 2), utilisation=round(utilisation, 3))


def report(**figure: object) -> None:
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
