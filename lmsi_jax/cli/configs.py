"""Builds a checked config dataclass from a config file and `--config.a.b=value` flags."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict, config_flags

from lmsi_jax.core import secrets
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.python_file import call, located
from lmsi_jax.core.settings import build, to_dict, unknown_key

T = TypeVar("T")
TABLES = ("mesh.rules", "data.columns")  # settings with keys of the user's own


def load_config(cls: type[T], file: str | None, overrides: Sequence[str]) -> T:
    """Return a checked `cls`: its defaults, overridden by `file`, then by `overrides`. Logins are removed from URLs.

    `file` is a Python file, or the name of a config that comes with the package.
    """
    merged = ConfigDict(to_dict(cls()), convert_dict=True)
    for override in overrides:  # a flag can only change an existing key, and this table has none
        table, _, key = override.removeprefix("--config.").partition("=")[0].rpartition(".")
        if table in TABLES:
            section, _, name = table.partition(".")
            merged[section][name][key] = ""
    if file:
        _update(merged, cls, _read(file))
    for override in overrides:
        _check_key(cls, override)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", merged, flag_values=values, sys_argv=["lmsi", *overrides])
    try:
        values(["lmsi", *overrides])
    except flags.Error as error:
        raise UserError(f"{error}.") from error
    return build(cls, secrets.strip(values.config.to_dict()))


def _read(file: str) -> dict[str, Any]:
    config = call(located(file), "get_config")
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file}: get_config() returns a {type(config).__name__}, not a ConfigDict.")
    values: dict[str, Any] = config.to_dict()
    return values


def _update(merged: ConfigDict, cls: type, values: dict[str, Any], path: str = "") -> None:
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in hints:
            raise unknown_key(cls, key, path)
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            _update(merged[key], typing.cast(type, hints[key]), value, f"{path}{key}.")
        else:
            with merged.ignore_type():
                merged[key] = value


def _check_key(cls: type, override: str) -> None:
    """Raise UserError when `--config.a.b=...` names no field, or a section."""
    path, here = "", cls
    name, equals, _ = override.removeprefix("--config.").partition("=")
    keys = name.split(".")
    for depth, key in enumerate(keys):
        if typing.get_origin(here) is dict and depth == len(keys) - 1:
            break
        if not dataclasses.is_dataclass(here):
            raise UserError(f"--config.{name}: '{path.rstrip('.')}' is a value, not a section.")
        hints = typing.get_type_hints(here)
        if key not in hints:
            raise unknown_key(here, key, path)
        path, here = f"{path}{key}.", hints[key]
        if depth == len(keys) - 1 and dataclasses.is_dataclass(here):
            raise UserError(f"--config.{name} is a section; set one of its keys, as in --config.{name}.KEY=VALUE.")
    if not equals:
        raise UserError(f"--config.{name} has no value; write --config.{name}=VALUE.")
