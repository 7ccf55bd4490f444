"""Settings as frozen dataclasses: built from the nested dict of a config file, checked once, and turned into a fingerprint.

A settings class is defined beside the code that it configures, and `build` creates it from plain values. Its method
`check(path)`, if it has one, raises UserError on invalid values; `path` is the name of its section with a trailing dot
("finetune."). A field that never affects a result is declared with `untraced(default)`. All other fields are part of the
fingerprint of the stages that receive them.
"""

import dataclasses
import math
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

from lmsi_jax.core.errors import UserError, nearest

T = TypeVar("T")
AFFECTS_RESULT = "affects_result"  # a key of a field's metadata


def untraced(default: T) -> T:
    """Declare a field that changes how a result is computed (batching, saving, logging), but never the result."""
    field: T = dataclasses.field(default=default, metadata={AFFECTS_RESULT: False})
    return field


def require(condition: bool, message: str) -> None:
    """Raise UserError with `message` unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raise UserError unless `value`, of the setting `name`, is one of the `known` values."""
    require(value in known, f"{name}={value!r} is not one of {', '.join(map(repr, known))}.")


def require_at_least(least: int, settings: Any, path: str, *names: str) -> None:
    """Raise UserError unless each of the named fields is at least `least`."""
    for name in names:
        value = getattr(settings, name)
        require(value >= least, f"{path}{name}={value} must be at least {least}.")


def require_positive(settings: Any, path: str, *names: str) -> None:
    """Raise UserError unless each of the named fields is above 0."""
    for name in names:
        require(getattr(settings, name) > 0, f"{path}{name}={getattr(settings, name)} must be positive.")


def require_share(settings: Any, path: str, *names: str) -> None:
    """Raise UserError unless each of the named fields is a share, from 0 to 1."""
    for name in names:
        require(0 <= getattr(settings, name) <= 1, f"{path}{name}={getattr(settings, name)} is not a share within 0..1.")


def require_seed(seed: int) -> None:
    """Raise UserError for a seed that does not fit into 32 bits, which is all that random keys use."""
    require(0 <= seed < 2**32, f"seed={seed} is not within 0..{2**32 - 1}; random keys use only 32 bits.")


def part(settings: Any, base: type[T]) -> T:
    """Return the fields that `settings` inherits from its base class `base`, as an instance of that class."""
    return base(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(typing.cast(Any, base))})


def traced(settings: Any) -> Any:
    """Return the settings that a result depends on, as JSON-able values: all fields not declared with `untraced`."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        fields = [field for field in dataclasses.fields(settings) if field.metadata.get(AFFECTS_RESULT, True)]
        return {field.name: traced(getattr(settings, field.name)) for field in fields}
    if isinstance(settings, dict):
        return {str(key): traced(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [traced(value) for value in settings]
    return settings


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return the values of a nested dict by their full names, as in {"sample.paths": 32}."""
    return dict(_flat(tree, path))


def _flat(tree: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def build(cls: type[T], values: dict[str, Any]) -> T:
    """Return a checked `cls` from a nested dict. Raises UserError on an unknown key, a wrong type or an invalid value."""
    config = _convert(cls, values, "")
    check(config)
    return config


def check(config: Any, path: str = "") -> None:
    """Check a config and all of its sections, and that every float is finite. `path` is the name of this section."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{path}{field.name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}{field.name}={value} is not a finite number.")
    if hasattr(config, "check"):
        config.check(path)


def unknown_key(cls: type, key: str, path: str = "") -> UserError:
    """Return the error for a key that `cls` does not have."""
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
        require_one_of(name, value, typing.get_args(hint))
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
    """Return a config as plain values; `build` turns them back into an equal config."""
    return dataclasses.asdict(config)
