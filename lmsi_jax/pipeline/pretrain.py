"""`lmsi pretrain`: the built-in base model, from nothing, on generated word problems."""

import itertools
import os
from collections.abc import Iterator, Sequence

import jax
from etils import epath

from lmsi_jax import model, tokenizers
from lmsi_jax.checkpoint.folder import save
from lmsi_jax.core import rng
from lmsi_jax.core.config import PretrainConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import absolute, is_unfinished
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.formatting.packing import PackedRows, Piece, pack
from lmsi_jax.pipeline.workdir import check_workdir, writing
from lmsi_jax.sharding import Mesh, make_mesh, param_shardings, use_mesh
from lmsi_jax.tasks.word_corpus import documents
from lmsi_jax.training.loop import train
from lmsi_jax.training.step import check_batch, trained_model


def corpus_rows(config: PretrainConfig, tokenizer: tokenizers.SentencePieceTokenizer) -> PackedRows:
    """The whole corpus in packed rows; every token is a target."""
    length = config.train.row_length
    pieces = []
    for text in documents(config.corpus, config.seed):
        ids = _fit([tokenizer.bos, *tokenizer.encode(text), tokenizer.eos], text, tokenizer, length)
        pieces.append(Piece(ids, target_start=1))
    return pack(pieces, length)


def _fit(ids: list[int], text: str, tokenizer: tokenizers.SentencePieceTokenizer, length: int) -> list[int]:
    while len(ids) > length:
        text, cut, _ = text.rpartition("\n\n")
        if not cut:
            raise UserError(
                f"One generated problem takes {len(ids)} tokens and train.row_length={length}; raise "
                f"--config.train.row_length or lower --config.corpus.terms."
            )
        ids = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
    return ids


def _lines(config: PretrainConfig) -> Iterator[str]:
    for text in itertools.islice(documents(config.corpus, config.seed), config.tokenizer_documents):
        yield from text.split("\n")


def pretrain(config: PretrainConfig, workdir: os.PathLike | str, command_line: Sequence[str]) -> epath.Path:
    """Train tokenizer and model; returns the checkpoint folder. Started again, it goes on where it was."""
    folder = absolute(workdir)
    check_workdir(config, folder)
    target = folder / "model"
    if target.exists() and not is_unfinished(target):
        console.print(f"{target} is complete; nothing to do.")
        return target
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.train, "train")
    param_shardings(mesh, *model.abstract(config.model))
    with writing(config, folder, command_line):
        _train(config, mesh, folder, target)
    return target


def _train(config: PretrainConfig, mesh: Mesh, folder: epath.Path, target: epath.Path) -> None:
    """Train the tokenizer, then the model, and write both as a checkpoint."""
    tokenizer = tokenizers.train(_lines(config), config.model.vocab)
    rows = corpus_rows(config, tokenizer)
    console.print(
        f"{model.count_params(config.model):,} parameters; {config.corpus.documents:,} documents in {len(rows):,} rows of "
        f"{config.train.row_length} tokens, {rows.padding:.1%} padding; "
        f"{config.train.steps * config.train.batch / len(rows):.2f} epochs"
    )
    with use_mesh(mesh), ProgressBar("pretrain", config.train.steps) as bar:
        key, places = rng.stage_key(config.seed, "init"), param_shardings(mesh, *model.abstract(config.model))
        params = jax.jit(lambda k: model.init(config.model, k), out_shardings=places)(key)
        trained = train(
            mesh,
            config.model,
            config.train,
            params,
            rows,
            seed=config.seed,
            folder=folder / "checkpoints",
            metrics_folder=folder / "metrics",
            name="pretrain",
            on_step=lambda step, metrics: bar.update(step, f"loss {metrics['loss']:.3f}"),
        )
        params = trained_model(config.model, config.train, params, trained)
    save(target, config.model, params, {"tokenizer.model": tokenizer.model})
