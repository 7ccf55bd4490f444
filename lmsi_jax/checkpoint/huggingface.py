"""Folders that Hugging Face `transformers` writes and reads: config.json, safetensors, tokenizer files.

Reading goes shard by shard of our mesh: a process holds no more of a tensor on the host than one device's part of it.
"""

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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from lmsi_jax import model
from lmsi_jax.checkpoint.bucket import BucketTensors
from lmsi_jax.checkpoint.families import Row, family, model_config
from lmsi_jax.core.config import ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import begin_folder, is_local, publish_folder, write_bytes, write_text
from lmsi_jax.sharding import Mesh, param_shardings

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
INDEX = "model.safetensors.index.json"
COMPANIONS = (  # what stands beside the tensors and goes with a model, byte for byte
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")  # of old files: a constant


def is_folder(folder: epath.Path) -> bool:
    """Was this folder written by `transformers`?"""
    file = folder / "config.json"
    return file.exists() and "model_type" in read_json(file)


def read_json(file: epath.Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}); copy it again from the model's source.") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no JSON object; copy it again from the model's source.")
    return found


class Tensors:
    """The tensors of a folder by name, read in part and on demand."""

    def __init__(self, folder: epath.Path):
        self.folder = folder
        self._files = {name: folder / file for name, file in _weight_map(folder).items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    @functools.cached_property
    def headers(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """(shape, dtype as safetensors writes it) of each tensor; reads no tensor."""
        found = {}
        for file in sorted(set(self._files.values())):
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118 (no dict)
                    part = opened.get_slice(name)
                    found[name] = (tuple(part.get_shape()), part.get_dtype())
        absent = [name for name in self._files if name not in found]
        if absent:
            raise UserError(
                f"{self.folder / INDEX} lists {len(absent)} tensor(s) that their files do not hold ({_some(absent)}); copy "
                f"the folder again."
            )
        return found

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of one tensor."""
        with _opened(self._files[name]) as opened:
            return opened.get_slice(name)[index]


def _opened(file: epath.Path):
    try:
        return safe_open(file, framework="numpy") if is_local(file) else BucketTensors(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is not a whole safetensors file ({error}); copy it again from the model's source.") from error


def _weight_map(folder: epath.Path) -> dict[str, str]:
    single, index = folder / "model.safetensors", folder / INDEX
    if index.exists():
        weight_map = read_json(index).get("weight_map")
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
    """The architecture of a folder, in the dtype of its tensors."""
    hf = read_json(folder / "config.json")
    family(hf)  # an unknown one is named before its tensors are
    kinds = {dtype: name for name, (_, dtype) in Tensors(folder).headers.items() if not IGNORED.fullmatch(name)}
    if len(kinds) != 1 or not kinds.keys() <= DTYPES.keys():
        stored = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(kinds.items()))
        raise UserError(
            f"{folder}: its tensors are stored as {stored}; one of {', '.join(DTYPES)} is read, the same for all. Save the "
            f"model in one of these first; a quantised one has to be dequantised."
        )
    return model_config(hf, DTYPES[next(iter(kinds))])


def check_tensors(folder: epath.Path, config: ModelConfig) -> dict[str, tuple[str, Row]]:
    """Our path -> (name in the folder, its row of the table). Raises UserError unless all fit; reads no tensor."""
    rows = family(read_json(folder / "config.json")).tensors
    wanted = names(config, rows)
    headers = Tensors(folder).headers
    shapes = {path: leaf.shape for path, leaf in flatten(model.abstract(config)[0]).items()}
    unset = [name for name, _ in wanted.values() if name not in headers]
    if unset:
        raise UserError(
            f"{folder} lacks {len(unset)} of {len(wanted)} tensors that config.json asks for ({_some(unset)}); config.json "
            f"and safetensors are of different models."
        )
    known = {name for name, _ in wanted.values()} | ({"lm_head.weight"} if config.tied_embedding else set())
    unmapped = [name for name in headers if name not in known and not IGNORED.fullmatch(name)]
    if unmapped:
        raise UserError(
            f"{folder} holds {len(unmapped)} tensor(s) that this architecture has no place for ({_some(unmapped)}); "
            f"copy config.json and the safetensors of one model."
        )
    wrong = [
        f"{name}: {headers[name][0]} in the file, {file_shape(shapes[path], row)} by config.json"
        for path, (name, row) in wanted.items()
        if headers[name][0] != file_shape(shapes[path], row)
    ]
    if wrong:
        raise UserError(
            f"{folder}: {len(wrong)} tensor(s) have other shapes than config.json says ({_some(wrong)}). Copy config.json and "
            f"the safetensors of one model."
        )
    return wanted


def load_params(folder: epath.Path, config: ModelConfig, mesh: Mesh) -> model.Params:
    """The parameters of a folder, each tensor straight onto its shards of `mesh`, one after the other."""
    wanted, tensors = check_tensors(folder, config), Tensors(folder)
    shapes, axes = model.abstract(config)
    places = flatten(param_shardings(mesh, shapes, axes))
    loaded = {}
    for path, shape in flatten(shapes).items():
        part: Any = functools.partial(_read_part, tensors, *wanted[path], shape.shape)
        loaded[path] = jax.make_array_from_callback(shape.shape, places[path], part).block_until_ready()
    return unflatten(loaded)


def _read_part(tensors: Tensors, name: str, row: Row, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """Our `index` of a parameter of ours: the rows and columns that hold it, cut, and turned to our order of axes."""
    groups = row[2]
    bounds = [slice(*part.indices(size)[:2]) for part, size in zip(index, shape, strict=True)]
    # Of merged axes the first is cut in the file; the others after reading (they are never cut by the usual rules).
    inner = [math.prod(shape[axis] for axis in group[1:]) for group in groups]
    cut = tuple(slice(bounds[g[0]].start * i, bounds[g[0]].stop * i) for g, i in zip(groups, inner, strict=True))
    read = tensors.read(name, cut)
    order = [axis for group in groups for axis in group]
    firsts = {group[0] for group in groups}
    sizes = [bounds[axis].stop - bounds[axis].start if axis in firsts else shape[axis] for axis in order]
    rest = tuple(slice(None) if axis in firsts else bounds[axis] for axis in order)
    return np.ascontiguousarray(read.reshape(sizes)[rest].transpose(np.argsort(order)))


def file_shape(shape: tuple[int, ...], row: Row) -> tuple[int, ...]:
    """The shape in the file of a parameter of ours."""
    return tuple(math.prod(shape[axis] for axis in group) for group in row[2])


def to_file(array: np.ndarray, row: Row) -> np.ndarray:
    """A parameter of ours as the file has it."""
    order = [axis for group in row[2] for axis in group]
    return np.ascontiguousarray(array.transpose(order)).reshape(file_shape(array.shape, row))


def names(config: ModelConfig, rows: Iterable[Row]) -> dict[str, tuple[str, Row]]:
    """Our path of each parameter -> (its name in a file of this family, its row)."""
    found, rows = {}, tuple(rows)
    for path in flatten(model.abstract(config)[0]):
        for row in rows:
            match = re.fullmatch(row[0], path)
            if match:
                found[path] = (match.expand(row[1]), row)
        if path not in found:
            raise UserError(f"This family's table has no name for the parameter {path}; its folder cannot be written or read.")
    return found


def export(
    params: model.Params,
    config: ModelConfig,
    hf: dict[str, Any],
    companions: dict[str, bytes],
    target: epath.Path,
    dtype: str,
    shard_bytes: int,
) -> None:
    """Write `params` as a folder that `transformers` loads, with `hf`, the config.json of the model they come from.

    The folder is whole or absent: it is written under a temporary name. One file of about `shard_bytes` is on the host at a
    time.
    """
    place = begin_folder(target)
    _write_tensors(params, names(config, family(hf).tensors), place, np.dtype(dtype), shard_bytes)
    key = "torch_dtype" if "torch_dtype" in hf else "dtype"
    write_text(place / "config.json", json.dumps({**hf, key: dtype}, indent=2, ensure_ascii=False) + "\n")
    for name, content in companions.items():
        write_bytes(place / name, content)
    publish_folder(place, target)


def _write_tensors(
    params: model.Params, wanted: dict[str, tuple[str, Row]], folder: epath.Path, dtype: np.dtype, shard_bytes: int
) -> None:
    leaves = flatten(params)
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
        # Of a copy, as an array keeps what it once was on the host.
        host = {p: np.asarray(jnp.copy(leaves[p])) for p in paths}
        tensors = {wanted[p][0]: to_file(array.astype(dtype, copy=False), wanted[p][1]) for p, array in host.items()}
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


def flatten(tree: Any) -> dict[str, Any]:
    """{"attention_0/query": leaf} of a nested dict."""
    leaves = jax.tree.leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def unflatten(leaves: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)[name] = leaf
    return tree


def _some(items: Iterable[str]) -> str:
    items = list(items)
    return ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")
