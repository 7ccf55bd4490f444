"""Where the time of a process goes: waiting for compilation, prefill, decoding; the rest is the host's own work."""

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping

_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
_spent: dict[str, float] = collections.defaultdict(float)
_listening = False


@contextlib.contextmanager
def spend(kind: str) -> Iterator[None]:
    """Count the time inside as `kind`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        _spent[kind] += time.perf_counter() - start


def spent() -> dict[str, float]:
    """Seconds of each kind since the process began to count, which the first call of this begins for compilation."""
    global _listening
    if not _listening:
        import jax.monitoring

        jax.monitoring.register_event_duration_secs_listener(_on_event)
        _listening = True
    return dict(_spent)


def since(before: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Seconds of each kind since `before = spent()`, of `seconds` in all; what is left over is "host"."""
    parts = {kind: round(total - before.get(kind, 0.0), 3) for kind, total in spent().items() if total > before.get(kind, 0.0)}
    return {**parts, "host": round(max(seconds - sum(parts.values()), 0.0), 3)}


def _on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event in _COMPILING:
        _spent["compile"] += duration_secs
