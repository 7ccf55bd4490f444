"""Fine-tunes a model on training rows."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.formatting.examples import tokenize
from lmsi_jax.formatting.packing import PackedRows, pack
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.flops import training_flops
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Model, Runtime
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.training.batches import check_batch, easy_first, shuffled
from lmsi_jax.training.config import TrainConfig, UpdateConfig
from lmsi_jax.training.log import Work
from lmsi_jax.training.loop import Run, train
from lmsi_jax.training.objective import cross_entropy
from lmsi_jax.training.trainable import Trainable, trainable

LEVELS = 8  # of difficulty, into which a curriculum divides the training rows


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """How a model is trained. `stream` is folded into the seed, so that rounds draw independently.

    `chat`: whether prompts have a chat template, whose control tokens the tokenizer then reads.
    """

    seed: int
    stream: str
    numerics: Numerics
    train: TrainConfig
    chat: bool = False


def run_finetune(runtime: Runtime, settings: FinetuneSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Train the parameters of `model` on `examples`, and write the checkpoint folder `trained`."""
    config, source = settings.train, folder.name_of(inputs["model"])
    check_batch(runtime.mesh, config, "finetune")
    model = runtime.load(inputs["model"], settings.numerics, control=settings.chat)
    pieces = tokenize(list(read_jsonl(inputs["examples"])), model.tokenizer, config.weighting)
    ordered = config.curriculum < 1
    if ordered and len({piece.difficulty for piece in pieces}) == 1:
        raise UserError(
            f"finetune.curriculum={config.curriculum}, and all {len(pieces)} training rows have the same `difficulty`; set "
            f"--config.format.difficulty, or give rows of a file that field."
        )
    rows = pack(pieces, config.row_length, config.share_prompts, LEVELS if ordered else 1)
    console.print(
        f"{runtime.stage}: {len(pieces)} examples in {len(rows)} rows, {rows.padding:.1%} padding, "
        f"{config.steps * config.batch / max(len(rows), 1):.2f} epochs"
        + (f", {sum(map(len, rows.prompts))} tokens of prompts computed once a step" if rows.prompts else "")
    )
    seed = stable_hash(f"{settings.seed} {settings.stream}")
    weights = trainable(model.config, config)
    with training_run(runtime, config, seed, scratch, work(model.config, config, rows)) as run:
        objective = cross_entropy(model.config, config.remat, config.z_loss, config.router)
        batches = easy_first(runtime.mesh, rows, config, seed) if ordered else shuffled(runtime.mesh, rows, config.batch, seed)
        trained = train(objective, batches, weights, (), model.params, config, run)
        save_trained(outputs["trained"], source, model, weights, trained, config)


@contextlib.contextmanager
def training_run(
    runtime: Runtime,
    config: UpdateConfig,
    seed: int,
    scratch: epath.Path,
    of_step: Work | None = None,
    note: Callable[[Mapping[str, float]], str] = lambda values: f"loss {values['loss']:.3f}",
) -> Iterator[Run]:
    """Yield the `Run` to train with: on the runtime's mesh, with a bar that shows `note`, and with its states in `scratch`."""
    with use_mesh(runtime.mesh), ProgressBar(runtime.stage, config.steps) as bar:
        yield Run(
            mesh=runtime.mesh,
            seed=seed,
            checkpoints=scratch / "state",
            metrics=runtime.metrics_file(),
            work=of_step,
            on_step=lambda step, values: bar.update(step, note(values)),
        )


def save_trained(target: epath.Path, source: str, model: Model, weights: Trainable, trained: Any, config: UpdateConfig) -> None:
    """Write the checkpoint folder of a model that was trained from the checkpoint `source`, with its adapters if it has any."""
    params = weights.merged(model.params, trained)
    adapters = folder.Adapters(trained, config.lora, source) if config.lora.rank else None
    stored = dataclasses.replace(folder.load_config(source), dtype=model.config.dtype)
    folder.save(target, stored, params, folder.companions(source), adapters, finetuned_from=source)


def work(config: ModelConfig, train: TrainConfig, rows: PackedRows) -> Work:
    """Return the tokens and floating-point operations of a training step on these rows."""
    prompts, longest = len(rows.prompts) * train.accumulate, max(map(len, rows.prompts), default=0)
    flops = training_flops(config, train.batch, train.row_length, prompts, longest, trains_weights=not train.lora.rank)
    return Work(train.batch * train.row_length, flops, config.dtype)
