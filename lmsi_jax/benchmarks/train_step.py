"""Training rows per second on the paper's mixture: `python -m lmsi_jax.benchmarks.train_step --workload S M --peers`.

Weights and token ids are random. A row has a question of 60 tokens and a target of 100 in one of the four formats; the two
few-shot formats have a prompt of 900 tokens before it. A step is forward and backward in the workload's dtype (float32; L:
bfloat16) and AdamW in float32. Prints one JSON line per figure: rows and useful tokens per second, and the matrix products'
operations per second as a share of the matmul peak measured in the same run (model FLOPs utilisation). For each installed peer
it prints our speed relative to the peer's. Peers compute each row in full.
On a GPU: `--workload L --row_length 2048 --examples 384 --microbatch 1 --remat full`.
"""

import argparse
import importlib.util
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lmsi_jax.benchmarks.decode import report
from lmsi_jax.benchmarks.workloads import ON_CPU, WORKLOADS
from lmsi_jax.core.machine import matmul_peak, seconds
from lmsi_jax.formatting.packing import PackedRows, Piece, pack
from lmsi_jax.model import transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages.finetune import work
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.objective import Batch, cross_entropy, place_batch, place_prompts
from lmsi_jax.training.step import init_state, make_step
from lmsi_jax.training.trainable import AllWeights

MICROBATCH = {"M": 8}  # packed rows, within 12 GB
PROMPT, QUESTION, TARGET = 900, 60, 100
FORMATS = ("few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct")


def mixture(config: ModelConfig, examples: int) -> list[Piece]:
    """Return `examples` rows of random ids, a quarter in each format."""
    rng = np.random.default_rng(0)
    draw = lambda count: [int(id) for id in rng.integers(0, config.vocab, (count,))]  # noqa: E731
    prompts: dict[str, list[int]] = {name: draw(PROMPT) if name.startswith("few") else [] for name in FORMATS}
    pieces = []
    for i in range(examples):
        prompt = [*prompts[FORMATS[i % 4]], *draw(QUESTION)]
        pieces.append(Piece([*prompt, *draw(TARGET)], len(prompt), FORMATS[i % 4]))
    return pieces


def seconds_per_step(config: ModelConfig, rows: PackedRows, train: TrainConfig, repeats: int) -> float:
    """Return the median seconds of a training step on all rows at once."""
    mesh = make_mesh(MeshConfig())
    with use_mesh(mesh):
        params = transformer.init_sharded(mesh, config, jax.random.key(0))
        trainable = AllWeights(config)
        state = init_state(mesh, trainable, train, params, 0)
        step = make_step(cross_entropy(config, train.remat), trainable, train)
        batch = place_batch(mesh, Batch(rows.take(np.arange(len(rows))), place_prompts(mesh, rows.prompts)))

        def run() -> dict[str, jax.Array]:
            nonlocal state
            state, metrics = step(state, batch, {})
            return metrics

        return seconds(run, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, nargs="+", default=list(ON_CPU))
    parser.add_argument("--examples", type=int, default=64, help="rows of the mixture per step")
    parser.add_argument("--row_length", type=int, default=320, help="tokens of a packed row")
    parser.add_argument("--remat", choices=["none", "scores", "dots", "full"], default="scores")
    parser.add_argument("--microbatch", type=int, help="packed rows per microbatch; 0 = all; by default 8 for M, else 0")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="also measure transformers and tunix, if they are installed")
    arguments = parser.parse_args()
    report(figure="machine", device=jax.devices()[0].device_kind)
    for name in arguments.workload:
        config = WORKLOADS[name].model
        microbatch = MICROBATCH.get(name, 0) if arguments.microbatch is None else arguments.microbatch
        peak = matmul_peak(config.dtype)
        report(figure="matmul", dtype=config.dtype, gflops=round(peak / 1e9, 1))
        pieces = mixture(config, arguments.examples)
        useful = sum(len(piece.tokens) for piece in pieces)
        speeds = {}
        for kind, share in (("shared prompts", True), ("packed", False)):
            rows = pack(pieces, arguments.row_length if share else PROMPT + 2 * (QUESTION + TARGET), share)
            batch, length = rows.tokens.shape
            accumulate = batch // math.gcd(batch, microbatch or batch)
            train = TrainConfig(batch=batch, row_length=length, accumulate=accumulate, remat=arguments.remat)
            spent = seconds_per_step(config, rows, train, arguments.repeats)
            speeds[kind] = len(pieces) / spent
            figures = {"rows_per_second": round(speeds[kind], 2), "tokens_per_second": round(useful / spent)}
            share_of_peak = round(work(config, train, rows).flops / spent / peak, 3)
            report(figure="train_step", workload=name, kind=kind, **figures, share_of_peak=share_of_peak)
        for peer, measure in peers(config).items() if arguments.peers else ():
            speed = len(pieces) / measure(pieces, arguments.repeats)
            times = round(speeds["shared prompts"] / speed, 2)
            report(figure="train_step", workload=name, peer=peer, rows_per_second=round(speed, 2), times=times)


Measure = Callable[[list[Piece], int], float]  # (rows, repeats) -> median seconds of a step


def peers(config: ModelConfig) -> dict[str, Measure]:
    """Return a measurement for each installed peer, by name. Rows of equal length are batched, so that none is padded."""
    builders = {"transformers": ("torch", _transformers), "google-tunix": ("tunix", _tunix)}
    return {name: build(config) for name, (module, build) in builders.items() if importlib.util.find_spec(module)}


def _by_length(pieces: list[Piece], largest: int = 8) -> list[np.ndarray]:
    """Return batches of rows of equal length. The last TARGET tokens of a row have a loss."""
    lengths = sorted({len(piece.tokens) for piece in pieces})
    groups = [[piece.tokens for piece in pieces if len(piece.tokens) == length] for length in lengths]
    return [np.array(group[i : i + largest]) for group in groups for i in range(0, len(group), largest)]


def _transformers(config: ModelConfig) -> Measure:
    import torch

    from lmsi_jax.benchmarks.peers import transformers_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = transformers_model(config).to(device).train()
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-5)

    def step(pieces: list[Piece]) -> None:
        for tokens in _by_length(pieces):
            ids = torch.tensor(tokens, device=device)
            with torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16"):
                logits = network(ids).logits[:, -TARGET - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, -TARGET:].flatten(), reduction="sum")
            loss.backward()
        adamw.step()
        adamw.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return lambda pieces, repeats: seconds(lambda: step(pieces), repeats)


def _tunix(config: ModelConfig) -> Measure:
    import optax
    from flax import nnx
    from tunix.models.llama3 import model as llama

    from lmsi_jax.benchmarks.peers import tunix_shape

    network = llama.Llama3(tunix_shape(config), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(network, optax.adamw(1e-5), wrt=nnx.Param)

    @nnx.jit
    def gradient(network: nnx.Module, ids: jax.Array) -> nnx.State:
        positions, mask = causal(*ids.shape)

        def loss(network: nnx.Module) -> jax.Array:
            logits, _ = network(ids, positions, None, mask)
            scored = logits[:, -TARGET - 1 : -1].astype(jnp.float32)
            return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(scored, ids[:, -TARGET:]))

        return nnx.grad(loss)(network)

    update = nnx.jit(lambda network, optimizer, grads: optimizer.update(network, grads))

    def step(pieces: list[Piece]) -> None:
        grads = [gradient(network, jnp.asarray(tokens)) for tokens in _by_length(pieces)]
        update(network, optimizer, jax.tree.map(lambda *each: sum(each), *grads))
        jax.block_until_ready(nnx.state(network))

    return lambda pieces, repeats: seconds(lambda: step(pieces), repeats)


if __name__ == "__main__":
    main()
