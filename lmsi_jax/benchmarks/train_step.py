"""Training rows a second on the paper's mixture: `python -m lmsi_jax.benchmarks.train_step --workload S M --peers`.

Random weights and ids. A question of 60 tokens and a target of 100 in each of the four formats, the two few-shot ones behind
a prompt of 900 tokens; forward, backward and AdamW in float32. One JSON line a figure: rows and useful tokens a second, the
products' floating-point operations a second as a share of the matmul peak measured in the same run, and for each peer
that is installed, which computes every row on its own, how many times as fast ours is.
"""

import argparse
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lmsi_jax import model
from lmsi_jax.benchmarks.decode import report
from lmsi_jax.benchmarks.workloads import WORKLOADS
from lmsi_jax.core.config import MeshConfig, ModelConfig, TrainConfig
from lmsi_jax.core.machine import matmul_peak
from lmsi_jax.formatting.packing import PackedRows, Piece, pack
from lmsi_jax.sharding import make_mesh, param_shardings, use_mesh
from lmsi_jax.training.log import operations
from lmsi_jax.training.step import init_state, make_step, place_batch, place_prompts

PROMPT, QUESTION, TARGET = 900, 60, 100
FORMATS = ("few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct")


def mixture(config: ModelConfig, examples: int) -> list[Piece]:
    """`examples` rows, a quarter of each format."""
    rng = np.random.default_rng(0)
    draw = lambda count: [int(id) for id in rng.integers(0, config.vocab, (count,))]  # noqa: E731
    prompts: dict[str, list[int]] = {name: draw(PROMPT) if name.startswith("few") else [] for name in FORMATS}
    pieces = []
    for i in range(examples):
        prompt = [*prompts[FORMATS[i % 4]], *draw(QUESTION)]
        pieces.append(Piece([*prompt, *draw(TARGET)], len(prompt), FORMATS[i % 4]))
    return pieces


def train_config(rows: PackedRows) -> TrainConfig:
    """All rows in one step."""
    return TrainConfig(batch=len(rows), row_length=rows.tokens.shape[1])


def seconds_per_step(config: ModelConfig, rows: PackedRows, repeats: int) -> float:
    """Median seconds of a step on all rows at once."""
    mesh, train = make_mesh(MeshConfig()), train_config(rows)
    with use_mesh(mesh):
        shardings = param_shardings(mesh, *model.abstract(config))
        params = jax.jit(lambda key: model.init(config, key), out_shardings=shardings)(jax.random.key(0))
        state, step = init_state(mesh, config, train, params, 0), make_step(config, train)
        batch, prompts = place_batch(mesh, rows.take(np.arange(len(rows)))), place_prompts(mesh, rows.prompts)
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            state, metrics = step(state, batch, {}, prompts)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, nargs="+", default=list(WORKLOADS))
    parser.add_argument("--examples", type=int, default=64, help="rows of the mixture in a step")
    parser.add_argument("--row_length", type=int, default=320, help="tokens of a packed row")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="measure transformers and tunix too, where they are installed")
    arguments = parser.parse_args()
    peak = matmul_peak()
    report(figure="machine", gflops=round(peak / 1e9, 1))
    for name in arguments.workload:
        config = WORKLOADS[name].model
        pieces = mixture(config, arguments.examples)
        useful = sum(len(piece.tokens) for piece in pieces)
        speeds = {}
        for kind, share in (("shared prompts", True), ("packed", False)):
            rows = pack(pieces, arguments.row_length if share else PROMPT + 2 * (QUESTION + TARGET), share)
            seconds = seconds_per_step(config, rows, arguments.repeats)
            speeds[kind] = len(pieces) / seconds
            figures = {"rows_per_second": round(speeds[kind], 2), "tokens_per_second": round(useful / seconds)}
            share_of_peak = round(operations(config, train_config(rows), rows) / seconds / peak, 3)
            report(figure="train_step", workload=name, kind=kind, **figures, share_of_peak=share_of_peak)
        for peer, measure in peers(config).items() if arguments.peers else ():
            speed = len(pieces) / measure(pieces, arguments.repeats)
            times = round(speeds["shared prompts"] / speed, 2)
            report(figure="train_step", workload=name, peer=peer, rows_per_second=round(speed, 2), times=times)


Measure = Callable[[list[Piece], int], float]  # (rows, repeats) -> median seconds of a step


def peers(config: ModelConfig) -> dict[str, Measure]:
    """Those that are installed. Rows of one length go together, so that none of them is padded."""
    builders = {"transformers": ("torch", _transformers), "google-tunix": ("tunix", _tunix)}
    return {name: build(config) for name, (module, build) in builders.items() if importlib.util.find_spec(module)}


def _by_length(pieces: list[Piece], largest: int = 8) -> list[tuple[np.ndarray, int]]:
    """Batches of rows of one length, and how many of their last tokens carry loss."""
    lengths = sorted({len(piece.tokens) for piece in pieces})
    groups = [[piece.tokens for piece in pieces if len(piece.tokens) == length] for length in lengths]
    return [(np.array(group[i : i + largest]), TARGET) for group in groups for i in range(0, len(group), largest)]


def _transformers(config: ModelConfig) -> Measure:
    import torch

    from lmsi_jax.benchmarks.peers import transformers_model

    network = transformers_model(config).train()
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-5)

    def step(pieces: list[Piece]) -> None:
        for tokens, target in _by_length(pieces):
            ids = torch.tensor(tokens)
            logits = network(ids).logits[:, -target - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, -target:].flatten(), reduction="sum")
            loss.backward()
        adamw.step()
        adamw.zero_grad()

    return functools.partial(_median, step)


def _tunix(config: ModelConfig) -> Measure:
    import optax
    from flax import nnx
    from tunix.models.llama3 import model as llama

    from lmsi_jax.benchmarks.peers import tunix_shape

    network = llama.Llama3(tunix_shape(config), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(network, optax.adamw(1e-5), wrt=nnx.Param)

    @nnx.jit
    def gradient(network: nnx.Module, ids: jax.Array) -> nnx.State:
        n, t = ids.shape
        positions = jnp.broadcast_to(jnp.arange(t)[None], (n, t))
        mask = jnp.broadcast_to(jnp.tril(jnp.ones((t, t), bool))[None], (n, t, t))

        def loss(network: nnx.Module) -> jax.Array:
            logits, _ = network(ids, positions, None, mask)
            found = logits[:, -TARGET - 1 : -1].astype(jnp.float32)
            return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(found, ids[:, -TARGET:]))

        return nnx.grad(loss)(network)

    update = nnx.jit(lambda network, optimizer, grads: optimizer.update(network, grads))

    def step(pieces: list[Piece]) -> None:
        grads = [gradient(network, jnp.asarray(tokens)) for tokens, _ in _by_length(pieces)]
        update(network, optimizer, jax.tree.map(lambda *each: sum(each), *grads))
        jax.block_until_ready(nnx.state(network))

    return functools.partial(_median, step)


def _median(step: Callable[[list[Piece]], None], pieces: list[Piece], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step(pieces)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
