"""A model on disk: config.json (its architecture), tokenizer.model and params/ (Orbax) in one folder."""

import json
import os
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmsi_jax import model
from lmsi_jax.core.config import ModelConfig, build, to_dict
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import dumps, write_text
from lmsi_jax.sharding import Mesh, param_shardings
from lmsi_jax.tokenizers import SentencePieceTokenizer

BUILTIN = Path(__file__).parent.parent / "assets" / "builtin"


def locate(checkpoint: str) -> epath.Path:
    """The folder of a checkpoint name: "builtin" or a path. Raises UserError when it is not a checkpoint."""
    folder = epath.Path(BUILTIN if checkpoint == "builtin" else checkpoint)
    missing = [name for name in ("config.json", "tokenizer.model", "params") if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder} is not a checkpoint folder: it has no {', '.join(missing)}. Set --config.model.checkpoint to a "
            f"folder that lmsi wrote (rounds/<r>/model), or to 'builtin'."
        )
    return folder


def load_config(checkpoint: str) -> ModelConfig:
    """The architecture of a checkpoint."""
    path = locate(checkpoint) / "config.json"
    try:
        return build(ModelConfig, json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); copy the checkpoint folder again.") from error


def load_tokenizer(checkpoint: str) -> SentencePieceTokenizer:
    """The tokenizer of a checkpoint; its size must fit the embedding."""
    tokenizer = SentencePieceTokenizer.load(locate(checkpoint) / "tokenizer.model")
    vocab = load_config(checkpoint).vocab
    if tokenizer.vocab > vocab:
        raise UserError(
            f"The tokenizer of {checkpoint} has {tokenizer.vocab} pieces and the model's embedding {vocab} rows; the "
            f"two files come from different models. Copy both from the same one."
        )
    return tokenizer


def load_params(checkpoint: str, mesh: Mesh) -> model.Params:
    """Parameters, each straight onto its own shards of `mesh`."""
    check_params(checkpoint)
    shapes, axes = model.abstract(load_config(checkpoint))
    places = param_shardings(mesh, shapes, axes)
    target = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((locate(checkpoint) / "params").resolve(), target)


def check_params(checkpoint: str) -> None:
    """Raise UserError when the stored parameters do not have the shapes of config.json. Reads no arrays."""
    folder = locate(checkpoint)
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata((folder / "params").resolve()).item_metadata
    have, want = _shapes(dict(stored.tree)), _shapes(model.abstract(load_config(checkpoint))[0])
    wrong = [name for name in sorted(have.keys() | want.keys()) if have.get(name) != want.get(name)]
    if wrong:
        rows = "; ".join(f"{n}: stored {have.get(n, 'nothing')}, config {want.get(n, 'nothing')}" for n in wrong[:5])
        raise UserError(
            f"{folder}: params/ and config.json are of different architectures, {len(wrong)} of {len(want)} tensors "
            f"disagree ({rows}). Restore the config.json that was written with these parameters."
        )


def _shapes(tree: dict) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(tree)}


def save(target: os.PathLike | str, config: ModelConfig, tokenizer: SentencePieceTokenizer, params: model.Params) -> None:
    """Write a checkpoint folder: under a temporary name first, then renamed, so that it is whole or absent."""
    folder = epath.Path(target)
    check_target(folder)
    temporary = folder.parent / f".{folder.name}.tmp"
    if temporary.exists():
        temporary.rmtree()
    temporary.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((temporary / "params").resolve(), params)
        checkpointer.wait_until_finished()
    write_text(temporary / "config.json", dumps(to_dict(config)) + "\n")
    (temporary / "tokenizer.model").write_bytes(tokenizer.model)
    if folder.exists():
        folder.rmtree()
    temporary.rename(folder)


def check_target(target: os.PathLike | str) -> None:
    """Raise UserError when something that is no checkpoint stands where one is to be written."""
    folder = epath.Path(target)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "params").exists())):
        raise UserError(f"{folder} exists and is not a checkpoint folder; nothing was overwritten. Choose another --output.")
