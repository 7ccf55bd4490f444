"""The work that a process has done so far: tokens sampled or trained on, and floating-point operations of matrix products."""

import collections
from collections.abc import Mapping

_done: dict[str, float] = collections.defaultdict(float)


def add(**amounts: float) -> None:
    """Add to "tokens" or "operations"."""
    for name, amount in amounts.items():
        _done[name] += amount


def done() -> dict[str, float]:
    """Return the totals."""
    return dict(_done)


def since(before: Mapping[str, float]) -> dict[str, float]:
    """Return what was added since `before = done()`."""
    return {name: total - before.get(name, 0.0) for name, total in _done.items() if total > before.get(name, 0.0)}
