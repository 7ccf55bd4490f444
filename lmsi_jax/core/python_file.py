"""Finds config files and studies, those that come with the package by name, and calls the function that one defines."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import lmsi_jax
from lmsi_jax.core.errors import UserError, nearest

SUFFIX = ".py"


def shipped_folder() -> Path:
    """Return the folder of the configs that come with the package: inside it when installed, beside it in a checkout."""
    package = Path(lmsi_jax.__file__).parent
    inside = package / "configs"
    return inside if inside.exists() else package.parent / "configs"


def shipped() -> dict[str, Path]:
    """Return the configs and studies that come with the package, by name, such as "tiny" and "studies/formats"."""
    folder = shipped_folder()
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob(f"*{SUFFIX}"))}


def located(file: str) -> Path:
    """Return the path of a config: a Python file, or the name of one that comes with the package."""
    if file.endswith(SUFFIX):
        if not Path(file).exists():
            raise UserError(f"--config={file} does not exist. `lmsi configs` lists those that come with lmsi_jax.")
        return Path(file)
    names = shipped()
    if file not in names:
        raise UserError(
            f"--config={file} is neither a Python file nor the name of a config that comes with lmsi_jax; the nearest is "
            f"{nearest(file, names)}. `lmsi configs` lists all."
        )
    return names[file]


def about(file: Path) -> str:
    """Return the docstring of a Python file, without running it."""
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def call(file: Path, function: str) -> Any:
    """Return the result of a file's function without arguments. Raises UserError when the file is not Python, or fails."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, function)()
    except Exception as error:
        raise UserError(f"--config={file} failed: {type(error).__name__}: {error}.") from error
