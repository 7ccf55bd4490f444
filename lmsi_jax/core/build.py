"""From the nested dict of a config file to the checked classes of `config.py`, and back."""

import dataclasses
import math
import typing
from typing import Any, Literal, TypeVar

from lmsi_jax.core.errors import UserError, nearest

T = TypeVar("T")


def build(cls: type[T], values: dict[str, Any]) -> T:
    """A checked `cls` from a nested dict. Raises UserError on an unknown key, a wrong type or a value that cannot be."""
    config = _convert(cls, values, "")
    check(config)
    return config


def check(config: Any, path: str = "") -> None:
    """Run the checks of a config and of all its sections, of which `path` is one; every number must be finite."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{path}{field.name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}{field.name}={value} is not a finite number.")
    getattr(config, "check", lambda: None)()


def unknown_key(cls: type, key: str, path: str = "") -> UserError:
    """The error for a key that `cls` does not have."""
    known = typing.get_type_hints(cls)
    near = nearest(key, known)
    return UserError(
        f"Unknown config key '{path}{key}'. The nearest known key is '{path}{near}'; known here: {', '.join(known)}."
    )


def _convert(hint: Any, value: Any, path: str) -> Any:
    name = path.rstrip(".")
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _section(typing.cast(type, hint), value, path)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise UserError(f"{name}={value!r} is not one of {', '.join(map(repr, typing.get_args(hint)))}.")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        args = typing.get_args(hint)
        if args[-1] is not Ellipsis and len(args) != len(value):
            raise UserError(f"{name}={value!r} has {len(value)} entries, not {len(args)}.")
        return tuple(_convert(args[0], item, path) for item in value)
    if origin is dict and hasattr(value, "items"):
        return {str(k): str(v) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise UserError(f"{name}={value!r} is a {type(value).__name__}, not a {getattr(hint, '__name__', hint)}.")
    return value


def _section(cls: type, value: Any, path: str) -> Any:
    if not hasattr(value, "items"):
        raise UserError(f"Config key '{path.rstrip('.')}' is a section, not a single value ({value!r}).")
    hints = typing.get_type_hints(cls)
    for key in value:
        if key not in hints:
            raise unknown_key(cls, key, path)
    return cls(**{key: _convert(hints[key], item, f"{path}{key}.") for key, item in value.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved config as plain values; `build` turns it back into an equal config."""
    return dataclasses.asdict(config)
