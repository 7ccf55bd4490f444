"""Pre-trains a base model on generated word problems: its corpus, its tokenizer, its parameters."""

import dataclasses
import itertools
from collections.abc import Sequence

from etils import epath

from lmsi_jax import tokenizers
from lmsi_jax.checkpoint import folder
from lmsi_jax.core import rng
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import write_bytes
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.formatting.packing import PackedRows, Piece, pack
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding import processes
from lmsi_jax.stages.finetune import training_run, work
from lmsi_jax.tasks.config import CorpusConfig
from lmsi_jax.tasks.near_copies import near_copies
from lmsi_jax.tasks.word_corpus import documents
from lmsi_jax.tokenizers import Tokenizer
from lmsi_jax.training.batches import shuffled
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.hooks import validation_loss
from lmsi_jax.training.loop import train
from lmsi_jax.training.objective import cross_entropy
from lmsi_jax.training.trainable import trainable


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """Which documents to generate. The `held_out` documents follow the training documents.

    Training documents with this similarity to an earlier or a held-out one are left out; 0 = none are.
    """

    seed: int
    corpus: CorpusConfig
    held_out: int
    near_copies: float = 0.0


def run_corpus(runtime: object, settings: CorpusSettings, inputs: Files, outputs: Files, scratch: object) -> None:
    """Write the documents to `train` on, and the `held_out` documents for the validation loss."""
    count = settings.corpus.documents
    texts = documents(settings.corpus, settings.seed, count + settings.held_out)
    if settings.near_copies:
        training, held_out = list(itertools.islice(texts, count)), list(texts)
        copies = {copy.text for copy in near_copies(training, settings.near_copies, others=held_out)}
        console.print(f"corpus: {len(copies):,} of {count:,} documents are left out as near copies", markup=False)
        texts = itertools.chain((text for i, text in enumerate(training) if i not in copies), held_out)
        count -= len(copies)
    write_jsonl(outputs["train"], ({"text": text} for text in itertools.islice(texts, count)))
    write_jsonl(outputs["held_out"], ({"text": text} for text in texts))


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """The size of a SentencePiece vocabulary, and the number of documents that it is trained on."""

    vocab: int
    documents: int


def run_tokenizer(runtime: object, settings: TokenizerSettings, inputs: Files, outputs: Files, scratch: object) -> None:
    """Train the `tokenizer` on the first documents of a `corpus`."""
    rows = itertools.islice(read_jsonl(inputs["corpus"]), settings.documents)
    lines = (line for row in rows for line in row["text"].split("\n"))
    write_bytes(outputs["tokenizer"], tokenizers.train(lines, settings.vocab).model)


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """The architecture and the training run."""

    seed: int
    model: ModelConfig
    train: TrainConfig
    validate_every: int = 500  # steps between two measurements of the validation loss


def run_pretrain(runtime: Runtime, settings: PretrainSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Train a model on a `corpus`, and write it with its tokenizer as `model`, and its losses on `held_out` texts as `curve`.

    A row of the curve has the `step`, the `tokens` seen, padding included, the different ones of them, and the `loss`. The
    model is that of the checkpoint `start`, or a random one with the `tokenizer`.
    """
    config, model, mesh = settings.train, settings.model, runtime.mesh
    start = str(inputs["start"]) if "start" in inputs else None
    if start:
        tokenizer, files = folder.load_tokenizer(start), folder.companions(start)
    else:
        tokenizer = tokenizers.SentencePieceTokenizer(inputs["tokenizer"].read_bytes())
        files = {"tokenizer.model": tokenizer.model}
    rows, held_out = (corpus_rows(inputs[name], tokenizer, config.row_length) for name in ("corpus", "held_out"))
    console.print(
        f"{transformer.parameters_text(model)}; {len(rows):,} rows of {config.row_length} tokens, "
        f"{rows.padding:.1%} padding; {config.steps * config.batch / len(rows):.2f} epochs"
    )
    with training_run(runtime, config, settings.seed, scratch, work(model, config, rows)) as run:
        random = rng.stage_key(settings.seed, "init")
        params = folder.load_params(start, mesh) if start else transformer.init_sharded(mesh, model, random)
        objective, weights = cross_entropy(model, config.remat, config.z_loss, config.router), trainable(model, config)
        hook = validation_loss(mesh, cross_entropy(model), held_out, config.batch // config.accumulate, settings.validate_every)
        trained = train(objective, shuffled(mesh, rows, config.batch, settings.seed), weights, [hook], params, config, run)
        params = weights.merged(params, trained)
        measured = [row for row in read_metrics(run.metrics) if "validation_loss" in row]
    write_curve(outputs["curve"], measured, config.batch * config.row_length, len(rows) * config.row_length)
    folder.save(outputs["model"], model, params, files)


def write_curve(file: epath.Path, measured: Sequence[Record], tokens_per_step: int, tokens_of_corpus: int) -> None:
    """Write the held-out losses of a training run, from the rows of its metrics that have one."""
    curve = [
        {
            "step": row["step"],
            "tokens": row["step"] * tokens_per_step,
            "unique_tokens": min(row["step"] * tokens_per_step, tokens_of_corpus),
            "loss": row["validation_loss"],
        }
        for row in measured
    ]
    processes.by_first(lambda: write_jsonl(file, curve))


def corpus_rows(file: epath.Path, tokenizer: Tokenizer, row_length: int) -> PackedRows:
    """Return documents packed into rows of `row_length` tokens. Every token but the first of a document is a target."""
    texts = (row["text"] for row in read_jsonl(file))
    return pack([Piece(_fitted(text, tokenizer, row_length), target_start=1) for text in texts], row_length)


def _fitted(text: str, tokenizer: Tokenizer, length: int) -> list[int]:
    """Return the ids of a document. If it is longer than a row, its last problems are dropped."""
    end = [tokenizer.eos] if tokenizer.eos >= 0 else []
    while len(ids := [*tokenizer.start(text), *end]) > length:
        text, cut, _ = text.rpartition("\n\n")
        if not cut:
            raise UserError(
                f"One generated problem takes {len(ids)} tokens and train.row_length={length}; raise "
                f"--config.train.row_length or lower --config.corpus.terms."
            )
    return ids
