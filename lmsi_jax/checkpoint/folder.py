"""A model on disk, in one folder.

A folder that lmsi writes contains config.json (the architecture), params/ (Orbax) and companion files. The companions are the
tokenizer files and, for a model imported from Hugging Face, generation_config.json and huggingface.json (its original
config.json). A model fine-tuned on sampled paths also has finetuned.json, and one fine-tuned with adapters has adapters/ and
adapters.json. A folder that `transformers` wrote is read directly.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict

from lmsi_jax import tokenizers
from lmsi_jax.checkpoint import huggingface
from lmsi_jax.core import hub
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import absolute, begin_folder, is_unfinished, publish_folder, read_object, write_bytes, write_text
from lmsi_jax.core.records import dumps
from lmsi_jax.core.settings import build, to_dict
from lmsi_jax.model import transformer
from lmsi_jax.model.config import LoraConfig, ModelConfig
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.mesh import Mesh

BUILTIN = Path(__file__).parent.parent / "assets" / "builtin"
ORIGIN = "huggingface.json"
FINETUNED = "finetuned.json"  # which checkpoint a model was fine-tuned from
REWARD_HEAD = "reward_head.json"  # makes a checkpoint a reward model
OURS = {"config.json", "params", "adapters", "adapters.json", ORIGIN, FINETUNED, REWARD_HEAD, *huggingface.COMPANIONS}


def locate(checkpoint: str) -> epath.Path:
    """Return the folder of a checkpoint, given "builtin", a path, or hf://ORG/NAME@REVISION, which is downloaded.

    Raises UserError when it is not a checkpoint.
    """
    if hub.is_address(checkpoint):
        checkpoint = str(hub.download(hub.parse(checkpoint), huggingface.FILES))
    folder = epath.Path(BUILTIN if checkpoint == "builtin" else checkpoint)
    if huggingface.is_folder(folder):
        return folder
    missing = [name for name in ("config.json", "params") if not (folder / name).exists()]
    if is_unfinished(folder):
        raise UserError(f"{folder} is incomplete, as the command that writes it was interrupted; run that command again.")
    if missing:
        raise UserError(
            f"{folder} is not a checkpoint folder: it has no {', '.join(missing)}. Name one that lmsi wrote "
            f"(models/<name>), one that `save_pretrained` of transformers wrote, or 'builtin'."
        )
    return folder


def name_of(folder: epath.Path) -> str:
    """Return the name by which other checkpoints refer to a checkpoint folder: "builtin" or its path."""
    return "builtin" if folder == epath.Path(BUILTIN) else str(folder)


def load_config(checkpoint: str) -> ModelConfig:
    """Return the architecture of a checkpoint."""
    folder = locate(checkpoint)
    if huggingface.is_folder(folder):
        return huggingface.read_config(folder)
    return build(ModelConfig, read_object(folder / "config.json"))


def load_chat_template(checkpoint: str) -> tokenizers.ChatTemplate:
    """Return the chat template of a checkpoint. Raises UserError when it has none."""
    return tokenizers.load_chat_template(locate(checkpoint))


def load_tokenizer(checkpoint: str, *, control: bool = False) -> tokenizers.Tokenizer:
    """Return the tokenizer of a checkpoint. Raises UserError when it has ids beyond the rows of the embedding."""
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


def load_params(checkpoint: str, mesh: Mesh) -> transformer.Params:
    """Return the parameters of a checkpoint, each restored directly to its shards on `mesh`."""
    folder, config = locate(checkpoint), load_config(checkpoint)
    if huggingface.is_folder(folder):
        return huggingface.load_params(folder, config, mesh)
    check_params(checkpoint)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(absolute(folder / "params"), transformer.sharded(mesh, config))


def check_params(checkpoint: str) -> None:
    """Raise UserError when the stored parameters do not have the shapes of config.json. Reads no arrays."""
    folder, config = locate(checkpoint), load_config(checkpoint)
    if huggingface.is_folder(folder):
        huggingface.check_tensors(folder, config)
        return
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(absolute(folder / "params")).item_metadata
    actual, expected = _shapes(dict(stored.tree)), _shapes(transformer.abstract(config)[0])
    wrong = [name for name in sorted(actual.keys() | expected.keys()) if actual.get(name) != expected.get(name)]
    if wrong:
        rows = "; ".join(f"{n}: stored {actual.get(n, 'none')}, config {expected.get(n, 'none')}" for n in wrong[:5])
        raise UserError(
            f"{folder}: params/ and config.json are of different architectures, {len(wrong)} of {len(expected)} tensors "
            f"disagree ({rows}). Restore the config.json that was written with these parameters."
        )


def _shapes(tree: dict) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(tree, sep="/").items()}


def companions(checkpoint: str) -> dict[str, bytes]:
    """Return the files that are copied unchanged with a model from round to round: {file name: content}."""
    folder = locate(checkpoint)
    files = {name: folder / name for name in huggingface.COMPANIONS}
    files[ORIGIN] = folder / ("config.json" if huggingface.is_folder(folder) else ORIGIN)
    return {name: file.read_bytes() for name, file in files.items() if file.exists()}


@dataclasses.dataclass(frozen=True)
class Adapters:
    """The adapters that a model was fine-tuned with. They are already merged into its params/."""

    tree: Any
    lora: LoraConfig
    base: str  # the checkpoint that they were trained on


def load_adapters(checkpoint: str) -> Adapters:
    """Return the adapters of a checkpoint. Raises UserError when it was not fine-tuned with adapters."""
    folder = locate(checkpoint)
    if not (folder / "adapters.json").exists():
        raise UserError(
            f"{folder} has no adapters: it was not fine-tuned with --config.finetune.lora.rank above 0. Export the full model."
        )
    about = read_object(folder / "adapters.json")
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(absolute(folder / "adapters"))
    return Adapters(tree, build(LoraConfig, about["lora"]), about["base"])


def is_finetuned(checkpoint: str) -> bool:
    """Return whether lmsi fine-tuned this model on sampled paths."""
    return (locate(checkpoint) / FINETUNED).exists()


def save(
    target: os.PathLike | str,
    config: ModelConfig,
    params: transformer.Params,
    companions: dict[str, bytes],
    adapters: Adapters | None = None,
    finetuned_from: str = "",
) -> None:
    """Write a checkpoint folder, completely or not at all. A checkpoint that lmsi wrote there before is replaced.

    `finetuned_from` is the checkpoint that fine-tuning started from, or "" for a base model. Raises UserError when `target`
    is anything other than a checkpoint that lmsi wrote.
    """
    folder = epath.Path(target)
    processes.by_first(lambda: check_target(folder))
    place = epath.Path(processes.by_first(lambda: os.fspath(begin_folder(folder))))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(absolute(place / "params"), params)
        if adapters:
            checkpointer.save(absolute(place / "adapters"), adapters.tree)
        checkpointer.wait_until_finished()

    def finish() -> None:
        files = dict(companions)
        if finetuned_from:
            files[FINETUNED] = (dumps({"base": finetuned_from}) + "\n").encode()
        if adapters:
            files["adapters.json"] = (dumps({"lora": to_dict(adapters.lora), "base": adapters.base}) + "\n").encode()
        for name, content in files.items():
            write_bytes(place / name, content)
        write_text(place / "config.json", dumps(to_dict(config)) + "\n")
        publish_folder(place, folder)

    processes.by_first(finish)


def check_target(folder: epath.Path) -> None:
    """Raise UserError when `folder` exists and contains anything other than a checkpoint that lmsi wrote."""
    if not folder.exists() or is_unfinished(folder):
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not folder.is_dir() or names - OURS or (names and not names >= {"config.json", "params"}):
        extra = f" (it has {', '.join(sorted(names - OURS)[:5])})" if names - OURS else ""
        raise UserError(
            f"{folder} exists and is not a checkpoint folder that lmsi wrote{extra}; nothing was overwritten. Choose another "
            f"target."
        )


def check_absent(target: os.PathLike | str, flag: str) -> None:
    """Raise UserError when `target`, the output of a command, exists and is neither empty nor unfinished."""
    folder = epath.Path(target)
    if folder.exists() and not is_unfinished(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists; nothing was overwritten. Choose another {flag}, or remove it.")
