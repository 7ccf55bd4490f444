"""Fine-tunes a model on preference pairs, such as those of a vote."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.metrics import Mean
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.rl.objective import policy_logprobs
from lmsi_jax.rl.preferences import scpo
from lmsi_jax.rl.rows import PROMPT_BUCKET, Path, Rows, pack_paths
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import jit
from lmsi_jax.stages.finetune import save_trained, training_run
from lmsi_jax.tokenizers import Tokenizer
from lmsi_jax.training.batches import batch_rows
from lmsi_jax.training.config import FinetuneConfig
from lmsi_jax.training.loop import train
from lmsi_jax.training.objective import Batch, Objective, place_batch, place_prompts
from lmsi_jax.training.trainable import trainable

SIDES = 2  # the chosen and the rejected answer of a pair, which share a row


@dataclasses.dataclass(frozen=True)
class PreferSettings:
    """How a model is trained. `stream` and `chat` are those of `FinetuneSettings`."""

    seed: int
    stream: str
    numerics: Numerics
    train: FinetuneConfig
    chat: bool = False


@dataclasses.dataclass(frozen=True)
class _Pair:
    prompt: Sequence[int]
    sides: Sequence[Sequence[int]]
    weight: float


def run_prefer(runtime: Runtime, settings: PreferSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Train the parameters of `model` on `pairs` by ScPO's loss, and write the checkpoint folder `trained`.

    A pair is one row: both answers continue its prompt, which is computed once. The reference is the initial model.
    """
    config, source, mesh = settings.train, folder.name_of(inputs["model"]), runtime.mesh
    model = runtime.load(inputs["model"], settings.numerics, control=settings.chat)
    pairs = [_tokens(row, model.tokenizer) for row in read_jsonl(inputs["pairs"])]
    seed, arrays = stable_hash(f"{settings.seed} {settings.stream}"), trainable(model.config, config)
    multiple = mesh.size("batch") * config.accumulate
    note = lambda values: f"loss {values['loss']:.3f}, {values['accuracy']:.0%} preferred"  # noqa: E731
    with training_run(runtime, config, seed, scratch, note=note) as run:
        reference = _reference(mesh, model.config, model.params, pairs, config.row_length, multiple)

        def batches(step: int, current: Any) -> Batch:
            chosen = batch_rows(seed, step - 1, len(pairs), config.batch)
            return _batch(mesh, [pairs[i] for i in chosen], reference[chosen], config.row_length, multiple)

        objective = scpo_objective(model.config, config.beta, config.alpha, config.remat)
        trained = train(objective, batches, arrays, (), model.params, config, run)
        save_trained(outputs["trained"], source, model, arrays, trained, config)
    console.print(f"{runtime.stage}: {len(pairs):,} pairs, {config.steps * config.batch / len(pairs):.2f} epochs")


@functools.cache
def scpo_objective(config: ModelConfig, beta: float, alpha: float, remat: str = "none") -> Objective:
    """Return the mean loss of `preferences.scpo` over pairs, with the share of pairs whose chosen answer is preferred.

    Rows are those of `_batch`: `reference` (rows, 2) and `pair_weights` (rows,), which are 0 where a row has no pair.
    """

    def objective(params: Any, batch: Batch) -> tuple[Mean, dict[str, Mean]]:
        rows = batch.rows
        sums = _sums(config, params, batch, remat)
        ratios = sums - rows["reference"]
        margins, used = ratios[:, 0] - ratios[:, 1], (rows["pair_weights"] > 0).astype(jnp.float32)
        lengths = jnp.maximum(jnp.sum(rows["sequences"] == 1, axis=1), 1).astype(jnp.float32)
        losses = scpo(margins, rows["pair_weights"], sums[:, 0], lengths, beta, alpha)
        count = jnp.sum(used)
        metrics = {"accuracy": Mean(jnp.sum((margins > 0) * used), count), "margin": Mean(jnp.sum(margins * used), count)}
        return Mean(jnp.sum(losses * used), count), metrics

    return objective


def _sums(config: ModelConfig, params: Any, batch: Batch, remat: str = "none") -> Float[Array, "n k"]:
    """Return the log-probability of both answers of each row."""
    logprobs = policy_logprobs(config, params, batch, 1.0, remat)
    of_side = jax.nn.one_hot(batch.rows["sequences"] - 1, SIDES, dtype=logprobs.dtype)  # nothing where it is 0
    return jnp.einsum("nt,ntk->nk", logprobs, of_side)


def _tokens(row: Record, tokenizer: Tokenizer) -> _Pair:
    prompt, end = tokenizer.start(row["prompt"]), [tokenizer.eos] if tokenizer.eos >= 0 else []
    sides = [[*tokenizer.encode_completion(row[name], prompt), *end] for name in ("chosen", "rejected")]
    return _Pair(prompt, sides, float(row["weight"]))


def _pack(pairs: Sequence[_Pair], row_length: int, multiple: int) -> Rows:
    paths = [Path(number, side, [0.0] * len(side)) for number, pair in enumerate(pairs) for side in pair.sides]
    return pack_paths([pair.prompt for pair in pairs], paths, row_length, multiple, whole=True)


def _batch(mesh: Mesh, pairs: Sequence[_Pair], reference: np.ndarray, row_length: int, multiple: int) -> Batch:
    packed = _pack(pairs, row_length, multiple)
    rows = len(packed.arrays["tokens"])
    of_rows, weights = np.zeros((rows, SIDES), np.float32), np.zeros(rows, np.float32)
    of_rows[: len(pairs)], weights[: len(pairs)] = reference, [pair.weight for pair in pairs]
    arrays = {**packed.arrays, "reference": of_rows, "pair_weights": weights}
    return Batch(arrays, place_prompts(mesh, packed.prompts, PROMPT_BUCKET))


def _reference(
    mesh: Mesh, config: ModelConfig, params: Any, pairs: Sequence[_Pair], row_length: int, multiple: int, at_once: int = 32
) -> np.ndarray:
    """Return the log-probabilities (pairs, 2) of all answers under the initial model."""

    @jit
    def sums(params: Any, batch: Batch) -> Float[Array, "n k"]:
        return _sums(config, params, batch)

    found = []
    for first in range(0, len(pairs), at_once):
        chosen = pairs[first : first + at_once]
        batch = _batch(mesh, chosen, np.zeros((len(chosen), SIDES), np.float32), row_length, multiple)
        found.append(processes.to_host(sums(params, place_batch(mesh, batch)))[: len(chosen)])
    return np.concatenate(found)
