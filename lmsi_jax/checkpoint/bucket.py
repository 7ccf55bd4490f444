"""Tensors of a safetensors file in a bucket, read one at a time. The safetensors library opens only local files."""

import contextlib
import json
import math
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class BucketTensors(contextlib.AbstractContextManager):
    """The interface of `safetensors.safe_open`, for a file in a bucket. Raises ValueError when the header is malformed."""

    def __init__(self, file: epath.Path):
        self._file = file
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > LARGEST_HEADER:
                raise ValueError(f"a header of {size} bytes")
            self._header: dict[str, Any] = json.loads(stream.read(size))
        self._header.pop("__metadata__", None)
        self._start = 8 + size

    def __exit__(self, *error: object) -> None:
        """Do nothing, as the file is closed after each read."""

    def keys(self) -> Iterable[str]:
        return self._header.keys()

    def get_slice(self, name: str) -> "BucketTensor":
        return BucketTensor(self._file, self._start, self._header[name])


class BucketTensor:
    """One tensor, any part of which can be read."""

    def __init__(self, file: epath.Path, start: int, about: dict[str, Any]):
        self._file, self._start, self._about = file, start, about

    def get_shape(self) -> list[int]:
        return self._about["shape"]

    def get_dtype(self) -> str:
        return self._about["dtype"]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Return a part of the tensor. Only the rows of the first axis that contain it are read from the file."""
        shape, dtype = self.get_shape(), jnp.dtype(DTYPES[self.get_dtype()])
        first, last, _ = index[0].indices(shape[0])
        row = math.prod(shape[1:]) * dtype.itemsize
        with self._file.open("rb") as stream:
            stream.seek(self._start + self._about["data_offsets"][0] + first * row)
            content = stream.read((last - first) * row)
        return np.frombuffer(content, dtype).reshape(last - first, *shape[1:])[(slice(None), *index[1:])]
