"""Calls a function that a user's Python file defines, such as get_config()."""

import importlib.util
from pathlib import Path
from typing import Any

from lmsi_jax.core.errors import UserError


def call(file: str, function: str, shipped: str) -> tuple[Any, str]:
    """Return the result of a file's function without arguments, and the file's docstring.

    Raises UserError when the file does not exist, is not Python, or fails. `shipped` is the folder of the project's own files.
    """
    path = Path(file)
    if not path.exists():
        raise UserError(f"--config={file} does not exist; those of the project are in {shipped}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={file} is not a Python file with a {function}() function.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, function)(), (module.__doc__ or "").strip()
    except Exception as error:
        raise UserError(f"--config={file} failed: {type(error).__name__}: {error}.") from error
