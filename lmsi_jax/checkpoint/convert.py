"""Conversion between lmsi checkpoint folders and Hugging Face folders: `lmsi import` and `lmsi export`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util
from safetensors.numpy import load, save

from lmsi_jax.checkpoint import folder, huggingface
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import begin_folder, publish_folder, write_bytes, write_text
from lmsi_jax.model import lora, transformer
from lmsi_jax.model.attention import causal
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import use_mesh

ADAPTER_CONFIG, ADAPTER_TENSORS = "adapter_config.json", "adapter_model.safetensors"


def import_folder(source: str, target: str, mesh: Mesh) -> str:
    """Write a Hugging Face folder as an lmsi checkpoint. Returns a summary such as "1,024 parameters in float32"."""
    if not huggingface.is_folder(folder.locate(source)):
        raise UserError(f"{source} is an lmsi checkpoint already; --from of `lmsi import` takes a Hugging Face folder.")
    folder.check_absent(target, "--to")
    folder.load_tokenizer(source)  # fails before anything large is read
    config = folder.load_config(source)
    folder.save(target, config, folder.load_params(source, mesh), folder.companions(source))
    return f"{transformer.parameters_text(config)} in {config.param_dtype}"


def export_folder(source: str, target: str, mesh: Mesh, dtype: str, shard_bytes: int) -> None:
    """Write a checkpoint as a folder that `transformers` loads, in files of about `shard_bytes`.

    A `dtype` of "" keeps the dtype of the checkpoint.
    """
    known = list(huggingface.DTYPES.values())
    if dtype and dtype not in known:
        raise UserError(f"--dtype={dtype} is not one of {', '.join(known)}.")
    folder.check_absent(target, "--to")
    hf, companions = _origin(source)
    config = folder.load_config(source)
    params = folder.load_params(source, mesh)
    huggingface.export(params, config, hf, companions, epath.Path(target), dtype or config.param_dtype, shard_bytes)


def _origin(source: str) -> tuple[dict, dict[str, bytes]]:
    """Return config.json of the Hugging Face folder that a checkpoint was imported from, and its companion files."""
    companions = folder.companions(source)
    stored = companions.pop(folder.ORIGIN, None)
    if stored is None:
        raise UserError(
            f"{source} did not come from a Hugging Face folder, so there is no family to write it as. Only imported models and "
            f"models that were fine-tuned from them can be exported."
        )
    return json.loads(stored), companions


def export_adapters(source: str, target: str) -> None:
    """Write the LoRA adapters of a checkpoint as a folder that `peft` loads onto their base model."""
    adapters, path = folder.load_adapters(source), epath.Path(target)
    folder.check_absent(target, "--to")
    names = _peft_names(source)
    low_rank = traverse_util.flatten_dict(adapters.tree, sep="/")
    weights = sorted({name.rpartition("/")[0] for name in low_rank})
    tensors = {}
    for weight in weights:
        a, b = (np.asarray(low_rank[f"{weight}/{part}"], np.float32) for part in "ab")
        name = names[weight]
        tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, a.shape[-1]).T)
        tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b.reshape(b.shape[0], -1).T)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapters.base,
        "r": adapters.lora.rank,
        "lora_alpha": adapters.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({names[weight].removeprefix("base_model.model.") for weight in weights}),
    }
    place = begin_folder(path)
    write_bytes(place / ADAPTER_TENSORS, save(tensors, metadata={"format": "pt"}))
    write_text(place / ADAPTER_CONFIG, json.dumps(settings, indent=2) + "\n")
    publish_folder(place, path)


def _peft_names(source: str) -> dict[str, str]:
    """Return the name of the module that `peft` adapts, by the path of each weight here."""
    specs = huggingface.named_specs(folder.load_config(source), _origin(source)[0])
    return {path: "base_model.model." + spec.file_name.removesuffix(".weight") for path, spec in specs.items()}


def largest_difference(source: str, target: str, mesh: Mesh, *, adapters: bool) -> float:
    """Return the largest absolute difference between the logits of a checkpoint and of its export, on 64 synthetic tokens.

    With `adapters`, `target` contains exported adapters, which are merged into their base model first.
    """
    config = folder.load_config(source)
    ours = folder.load_params(source, mesh)
    theirs = _adapted(source, target, mesh) if adapters else huggingface.load_params(epath.Path(target), config, mesh)
    return float(jnp.max(jnp.abs(_logits(config, ours, mesh) - _logits(config, theirs, mesh))))


def _adapted(source: str, target: str, mesh: Mesh) -> transformer.Params:
    """Return the base model of the adapters with the exported adapters merged."""
    stored, names = folder.load_adapters(source), _peft_names(source)
    tensors = load((epath.Path(target) / ADAPTER_TENSORS).read_bytes())
    shapes = traverse_util.flatten_dict(stored.tree, sep="/")
    read = {
        path: tensors[f"{names[path.rpartition('/')[0]]}.lora_{path[-1].upper()}.weight"].T.reshape(leaf.shape)
        for path, leaf in shapes.items()
    }
    base = folder.load_params(stored.base, mesh)
    with use_mesh(mesh):
        return lora.merge(base, jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(read, sep="/")), stored.lora)


def _logits(config: ModelConfig, params: transformer.Params, mesh: Mesh) -> jax.Array:
    rows, t = mesh.size("batch"), min(64, config.context)
    tokens = jnp.tile((jnp.arange(t) * 7919) % config.vocab, (rows, 1))
    with use_mesh(mesh):
        return jax.jit(lambda p: transformer.forward(config, p, tokens, *causal(rows, t))[0])(params)
