"""Folders that Hugging Face `transformers` writes and reads: config.json, safetensors, tokenizer files.

Tensors are read shard by shard of the mesh: a process never has more of a tensor on the host than one device's part of it.
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from lmsi_jax.checkpoint.bucket import BucketTensors
from lmsi_jax.checkpoint.families import family, model_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import begin_folder, is_local, publish_folder, read_object, write_bytes, write_text
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.model.spec import WeightSpec
from lmsi_jax.sharding.mesh import Mesh

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
INDEX = "model.safetensors.index.json"
COMPANIONS = (  # files beside the tensors that are copied with a model, byte for byte
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json", *COMPANIONS)  # of a repository of the hub
IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")  # a constant that old files contain


def is_folder(folder: epath.Path) -> bool:
    """Return whether `transformers` wrote this folder."""
    file = folder / "config.json"
    return file.exists() and "model_type" in read_object(file)


class Tensors:
    """The tensors of a folder by name, read on demand and in parts."""

    def __init__(self, folder: epath.Path):
        self.folder = folder
        self._files = {name: folder / file for name, file in _weight_map(folder).items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    @functools.cached_property
    def headers(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shape and the safetensors dtype, such as "BF16", of each tensor. Reads no tensor."""
        headers = {}
        for file in sorted(set(self._files.values())):
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118 (no dict)
                    part = opened.get_slice(name)
                    headers[name] = (tuple(part.get_shape()), part.get_dtype())
        absent = [name for name in self._files if name not in headers]
        if absent:
            raise UserError(
                f"{self.folder / INDEX} lists {len(absent)} tensor(s) that their files do not contain ({_some(absent)}); copy "
                f"the folder again."
            )
        return headers

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Return the part `index` of one tensor."""
        with _opened(self._files[name]) as opened:
            return opened.get_slice(name)[index]


def _opened(file: epath.Path):
    try:
        return safe_open(file, framework="numpy") if is_local(file) else BucketTensors(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is not a complete safetensors file ({error}); copy it from the model's source.") from error


def _weight_map(folder: epath.Path) -> dict[str, str]:
    single, index = folder / "model.safetensors", folder / INDEX
    if index.exists():
        weight_map = read_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{index} has no `weight_map`; copy it again from the model's source.")
        missing = sorted({file for file in weight_map.values() if not (folder / file).exists()})
        if missing:
            raise UserError(
                f"{folder} lacks {len(missing)} of {len(set(weight_map.values()))} shards that {INDEX} names "
                f"({_some(missing)}); copy them from the model's source."
            )
        return weight_map
    if single.exists():
        with _opened(single) as opened:
            return dict.fromkeys(opened.keys(), single.name)
    raise UserError(
        f"{folder} has neither model.safetensors nor {INDEX}; only safetensors are read. Save the model again with "
        f"`save_pretrained(DIR)`, which writes them."
    )


def read_config(folder: epath.Path) -> ModelConfig:
    """Return the architecture of a folder, with the dtype of its tensors."""
    hf = read_object(folder / "config.json")
    family(hf)  # an unknown family is reported before its tensors are read
    kinds = {dtype: name for name, (_, dtype) in Tensors(folder).headers.items() if not IGNORED.fullmatch(name)}
    if len(kinds) != 1 or not kinds.keys() <= DTYPES.keys():
        stored = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(kinds.items()))
        raise UserError(
            f"{folder}: its tensors are stored as {stored}; all must have the same dtype, one of {', '.join(DTYPES)}. Save "
            f"the model in one of these first; a quantised model must be dequantised."
        )
    return model_config(hf, DTYPES[next(iter(kinds))])


def check_tensors(folder: epath.Path, config: ModelConfig) -> dict[str, WeightSpec]:
    """Return the spec of each weight by its path here. Reads no tensor.

    Raises UserError unless the folder has exactly these weights, in the shapes that config.json implies.
    """
    wanted = named_specs(config, read_object(folder / "config.json"))
    headers = Tensors(folder).headers
    shapes = {path: leaf.shape for path, leaf in flatten_dict(transformer.abstract(config)[0], sep="/").items()}
    tensors = {
        each.file_name: file_shape(shape, each) for path, spec in wanted.items() for each, shape in spec.tensors(shapes[path])
    }
    unset = [name for name in tensors if name not in headers]
    if unset:
        raise UserError(
            f"{folder} lacks {len(unset)} of {len(tensors)} tensors that config.json requires ({_some(unset)}); config.json "
            f"and safetensors are of different models."
        )
    known = tensors.keys() | ({"lm_head.weight"} if config.tied_embedding else set())
    unmapped = [name for name in headers if name not in known and not IGNORED.fullmatch(name)]
    if unmapped:
        raise UserError(
            f"{folder} has {len(unmapped)} tensor(s) that this architecture does not use ({_some(unmapped)}); "
            f"copy config.json and the safetensors of one model."
        )
    wrong = [
        f"{name}: {headers[name][0]} in the file, {shape} by config.json"
        for name, shape in tensors.items()
        if headers[name][0] != shape
    ]
    if wrong:
        raise UserError(
            f"{folder}: {len(wrong)} tensor(s) do not have the shapes of config.json ({_some(wrong)}). Copy config.json and "
            f"the safetensors of one model."
        )
    return wanted


def named_specs(config: ModelConfig, hf: dict[str, Any]) -> dict[str, WeightSpec]:
    """Return the spec of each weight by its path here, with its name in folders of the family of `hf`, a config.json."""
    specs, kind = flatten_dict(transformer.specs(config), sep="/"), family(hf)
    return {path: dataclasses.replace(spec, file_name=kind.file_name(spec.file_name)) for path, spec in specs.items()}


def load_params(folder: epath.Path, config: ModelConfig, mesh: Mesh) -> transformer.Params:
    """Return the parameters of a folder. Tensors are read one at a time, directly to their shards on `mesh`."""
    wanted, tensors = check_tensors(folder, config), Tensors(folder)
    loaded = {}
    for path, leaf in flatten_dict(transformer.sharded(mesh, config), sep="/").items():
        part: Any = functools.partial(_read_part, tensors, wanted[path], leaf.shape)
        loaded[path] = jax.make_array_from_callback(leaf.shape, leaf.sharding, part).block_until_ready()
    return unflatten_dict(loaded, sep="/")


def _read_part(tensors: Tensors, spec: WeightSpec, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """Read the part `index` of a parameter from the rows and columns that contain it, transposed to the axis order here."""
    if spec.is_stacked:
        numbers = range(*index[0].indices(shape[0]))
        return np.stack([_read_part(tensors, spec.entry(i), shape[1:], index[1:]) for i in numbers])
    groups = spec.file_axes
    bounds = [slice(*part.indices(size)[:2]) for part, size in zip(index, shape, strict=True)]
    # The first of merged axes is sliced in the file, the others after reading. (The usual rules never shard those.)
    inner = [math.prod(shape[axis] for axis in group[1:]) for group in groups]
    cut = tuple(slice(bounds[g[0]].start * i, bounds[g[0]].stop * i) for g, i in zip(groups, inner, strict=True))
    read = tensors.read(spec.file_name, cut)
    order = [axis for group in groups for axis in group]
    firsts = {group[0] for group in groups}
    sizes = [bounds[axis].stop - bounds[axis].start if axis in firsts else shape[axis] for axis in order]
    rest = tuple(slice(None) if axis in firsts else bounds[axis] for axis in order)
    return np.ascontiguousarray(read.reshape(sizes)[rest].transpose(np.argsort(order)))


def file_shape(shape: tuple[int, ...], spec: WeightSpec) -> tuple[int, ...]:
    """Return the shape in the file of a parameter that has the shape `shape` here."""
    return tuple(math.prod(shape[axis] for axis in group) for group in spec.file_axes)


def to_files(array: np.ndarray, spec: WeightSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the tensor of a parameter, or of each entry of a stacked one."""
    parts = array if spec.is_stacked else (array,)
    for part, (each, _) in zip(parts, spec.tensors(array.shape), strict=True):
        yield each.file_name, to_file(part, each)


def to_file(array: np.ndarray, spec: WeightSpec) -> np.ndarray:
    """Return a parameter with its axes ordered and merged as in the file."""
    order = [axis for group in spec.file_axes for axis in group]
    return np.ascontiguousarray(array.transpose(order)).reshape(file_shape(array.shape, spec))


def export(
    params: transformer.Params,
    config: ModelConfig,
    hf: dict[str, Any],
    companions: dict[str, bytes],
    target: epath.Path,
    dtype: str,
    shard_bytes: int,
) -> None:
    """Write `params` as a folder that `transformers` loads. `hf` is the config.json of the model they come from.

    The folder is complete or absent, since it is written under a temporary name. At most one file of about `shard_bytes` is
    in host memory at a time.
    """
    place = begin_folder(target)
    _write_tensors(params, named_specs(config, hf), place, np.dtype(dtype), shard_bytes)
    key = "torch_dtype" if "torch_dtype" in hf else "dtype"
    write_text(place / "config.json", json.dumps({**hf, key: dtype}, indent=2, ensure_ascii=False) + "\n")
    for name, content in companions.items():
        write_bytes(place / name, content)
    publish_folder(place, target)


def _write_tensors(
    params: transformer.Params, specs: dict[str, WeightSpec], folder: epath.Path, dtype: np.dtype, shard_bytes: int
) -> None:
    leaves = dict(sorted(flatten_dict(params, sep="/").items()))
    shards: list[list[str]] = [[]]
    size = 0
    for path in leaves:
        size += leaves[path].size * dtype.itemsize
        if size > shard_bytes and shards[-1]:
            shards.append([])
            size = leaves[path].size * dtype.itemsize
        shards[-1].append(path)
    file = "model-{:05d}-of-{:05d}.safetensors" if len(shards) > 1 else "model.safetensors"
    weight_map, total = {}, 0
    for number, paths in enumerate(shards, start=1):
        # Converts a copy, because an array keeps its converted value in host memory.
        host = {p: np.asarray(jnp.copy(leaves[p])) for p in paths}
        tensors = {
            name: tensor for p, array in host.items() for name, tensor in to_files(array.astype(dtype, copy=False), specs[p])
        }
        _save(tensors, folder / file.format(number, len(shards)))
        weight_map.update(dict.fromkeys(tensors, file.format(number, len(shards))))
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")


def _save(tensors: dict[str, np.ndarray], file: epath.Path) -> None:
    if is_local(file):  # without a second copy of the tensors in memory
        save_file(tensors, file, metadata={"format": "pt"})
    else:
        write_bytes(file, save(tensors, metadata={"format": "pt"}))


def _some(items: Iterable[str]) -> str:
    items = list(items)
    return ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")
