"""A model on disk, in one folder.

Ours: config.json (its architecture), params/ (Orbax), and its companions, which are the tokenizer's files and, of a model that
came from Hugging Face, huggingface.json (its config.json there) and generation_config.json. A model that was fine-tuned on its
own paths has finetuned.json beside them. A folder that `transformers` wrote is read as it is.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmsi_jax import model, tokenizers
from lmsi_jax.checkpoint import huggingface
from lmsi_jax.core.build import build, to_dict
from lmsi_jax.core.config import LoraConfig, ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import absolute, begin_folder, is_unfinished, publish_folder, write_bytes, write_text
from lmsi_jax.core.records import dumps
from lmsi_jax.sharding import Mesh, param_shardings, processes

BUILTIN = Path(__file__).parent.parent / "assets" / "builtin"
ORIGIN = "huggingface.json"
FINETUNED = "finetuned.json"  # which checkpoint a model was fine-tuned from
OURS = {"config.json", "params", "adapters", "adapters.json", ORIGIN, FINETUNED, *huggingface.COMPANIONS}


def locate(checkpoint: str) -> epath.Path:
    """The folder of a checkpoint name: "builtin" or a path. Raises UserError when it is not a checkpoint."""
    folder = epath.Path(BUILTIN if checkpoint == "builtin" else checkpoint)
    if huggingface.is_folder(folder):
        return folder
    missing = [name for name in ("config.json", "params") if not (folder / name).exists()]
    if is_unfinished(folder):
        raise UserError(f"{folder} was never written to its end; start the command that writes it again.")
    if missing:
        raise UserError(
            f"{folder} is not a checkpoint folder: it has no {', '.join(missing)}. Name one that lmsi wrote "
            f"(rounds/<r>/model), one that `save_pretrained` of transformers wrote, or 'builtin'."
        )
    return folder


def load_config(checkpoint: str) -> ModelConfig:
    """The architecture of a checkpoint."""
    folder = locate(checkpoint)
    if huggingface.is_folder(folder):
        return huggingface.read_config(folder)
    return build(ModelConfig, huggingface.read_json(folder / "config.json"))


def load_chat_template(checkpoint: str) -> tokenizers.ChatTemplate:
    """The chat template of a checkpoint. Raises UserError when it has none."""
    return tokenizers.load_chat_template(locate(checkpoint))


def load_tokenizer(checkpoint: str, *, control: bool = False) -> tokenizers.Tokenizer:
    """The tokenizer of a checkpoint; its size must fit the embedding."""
    tokenizer = tokenizers.load(locate(checkpoint), control=control)
    vocab = load_config(checkpoint).vocab
    if tokenizer.vocab > vocab:
        raise UserError(
            f"The tokenizer of {checkpoint} has {tokenizer.vocab} pieces and the model's embedding {vocab} rows; the "
            f"two files come from different models. Copy both from the same one."
        )
    outside = [id for id in (tokenizer.bos, *tokenizer.ends) if id >= vocab]
    if outside:
        raise UserError(
            f"The tokenizer of {checkpoint} begins or ends texts with id {outside[0]}, and the model's embedding has {vocab} "
            f"rows; the two files come from different models. Copy both from the same one."
        )
    return tokenizer


def load_params(checkpoint: str, mesh: Mesh) -> model.Params:
    """Parameters, each straight onto its own shards of `mesh`."""
    folder, config = locate(checkpoint), load_config(checkpoint)
    if huggingface.is_folder(folder):
        return huggingface.load_params(folder, config, mesh)
    check_params(checkpoint)
    shapes, axes = model.abstract(config)
    places = param_shardings(mesh, shapes, axes)
    target = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, places)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(absolute(folder / "params"), target)


def check_params(checkpoint: str) -> None:
    """Raise UserError when the stored parameters do not have the shapes of config.json. Reads no arrays."""
    folder, config = locate(checkpoint), load_config(checkpoint)
    if huggingface.is_folder(folder):
        huggingface.check_tensors(folder, config)
        return
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(absolute(folder / "params")).item_metadata
    have, want = _shapes(dict(stored.tree)), _shapes(model.abstract(config)[0])
    wrong = [name for name in sorted(have.keys() | want.keys()) if have.get(name) != want.get(name)]
    if wrong:
        rows = "; ".join(f"{n}: stored {have.get(n, 'nothing')}, config {want.get(n, 'nothing')}" for n in wrong[:5])
        raise UserError(
            f"{folder}: params/ and config.json are of different architectures, {len(wrong)} of {len(want)} tensors "
            f"disagree ({rows}). Restore the config.json that was written with these parameters."
        )


def _shapes(tree: dict) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in huggingface.flatten(tree).items()}


def companions(checkpoint: str) -> dict[str, bytes]:
    """What goes with a model from round to round, unchanged: {file name: content}."""
    folder = locate(checkpoint)
    files = {name: folder / name for name in huggingface.COMPANIONS}
    files[ORIGIN] = folder / ("config.json" if huggingface.is_folder(folder) else ORIGIN)
    return {name: file.read_bytes() for name, file in files.items() if file.exists()}


@dataclasses.dataclass(frozen=True)
class Adapters:
    """The adapters that a model was fine-tuned with; its params/ have them merged already."""

    tree: Any
    lora: LoraConfig
    base: str  # the checkpoint that they were trained on


def load_adapters(checkpoint: str) -> Adapters:
    """The adapters of a checkpoint; raises UserError when it was not fine-tuned with any."""
    folder = locate(checkpoint)
    if not (folder / "adapters.json").exists():
        raise UserError(
            f"{folder} has no adapters: it was not fine-tuned with --config.finetune.lora.rank above 0. Export it as a whole."
        )
    about = huggingface.read_json(folder / "adapters.json")
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(absolute(folder / "adapters"))
    return Adapters(tree, build(LoraConfig, about["lora"]), about["base"])


def is_finetuned(checkpoint: str) -> bool:
    """Was this model fine-tuned by us, on paths that a model sampled?"""
    return (locate(checkpoint) / FINETUNED).exists()


def save(
    target: os.PathLike | str,
    config: ModelConfig,
    params: model.Params,
    companions: dict[str, bytes],
    adapters: Adapters | None = None,
    finetuned_from: str = "",
) -> None:
    """Write a checkpoint folder, whole or not at all, in the place of one that we wrote before.

    `finetuned_from` names the checkpoint that fine-tuning started from; a base model has none.
    """
    folder = epath.Path(target)
    place = epath.Path(processes.by_first(lambda: os.fspath(_begin(folder))))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(absolute(place / "params"), params)
        if adapters:
            checkpointer.save(absolute(place / "adapters"), adapters.tree)
        checkpointer.wait_until_finished()

    def end() -> None:
        files = dict(companions)
        if finetuned_from:
            files[FINETUNED] = (dumps({"base": finetuned_from}) + "\n").encode()
        if adapters:
            files["adapters.json"] = (dumps({"lora": to_dict(adapters.lora), "base": adapters.base}) + "\n").encode()
        for name, content in files.items():
            write_bytes(place / name, content)
        write_text(place / "config.json", dumps(to_dict(config)) + "\n")
        publish_folder(place, folder)

    processes.by_first(end)


def _begin(folder: epath.Path) -> epath.Path:
    check_target(folder)
    return begin_folder(folder)


def check_target(folder: epath.Path) -> None:
    """Raise UserError when a checkpoint is to be written where something stands that is not a checkpoint of ours alone."""
    if not folder.exists() or is_unfinished(folder):
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not folder.is_dir() or names - OURS or (names and not names >= {"config.json", "params"}):
        foreign = f" (it has {', '.join(sorted(names - OURS)[:5])})" if names - OURS else ""
        raise UserError(
            f"{folder} exists and is not a checkpoint folder that lmsi wrote{foreign}; nothing was overwritten. Choose another "
            f"target."
        )


def check_absent(target: os.PathLike | str, flag: str) -> None:
    """Raise UserError when `target`, which a command is to write, exists already."""
    folder = epath.Path(target)
    if folder.exists() and not is_unfinished(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists; nothing was overwritten. Choose another {flag}, or remove it.")
