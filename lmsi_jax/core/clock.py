"""Seconds that a process spends in each category: "compile", "prefill", "decode", "train"; the remainder is "host"."""

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping

_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
_spent: dict[str, float] = collections.defaultdict(float)
_listening = False

now = time.perf_counter


@contextlib.contextmanager
def spend(category: str) -> Iterator[None]:
    """Add the time spent in the context to a category."""
    start = now()
    try:
        yield
    finally:
        _spent[category] += now() - start


def spent() -> dict[str, float]:
    """Return cumulative seconds per category. Compile times are counted from the first call on."""
    global _listening
    if not _listening:
        import jax.monitoring

        jax.monitoring.register_event_duration_secs_listener(_on_event)
        _listening = True
    return dict(_spent)


def since(before: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return the seconds per category since `before = spent()`. The remainder of the total, `seconds`, is "host"."""
    parts = {name: round(total - before.get(name, 0.0), 3) for name, total in spent().items() if total > before.get(name, 0.0)}
    return {**parts, "host": round(max(seconds - sum(parts.values()), 0.0), 3)}


def _on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event in _COMPILING:
        _spent["compile"] += duration_secs
