"""Large language models that improve themselves on unlabelled questions, in JAX.

The functions of `library.py` are imported when they are first used, so that `import lmsi_jax` is fast and imports no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmsi_jax.core.errors import UserError
    from lmsi_jax.library import compare, evaluate, extract, finetune, fit, format, load, reward, sample, vote

__version__ = "0.1.0"
__all__ = [
    "UserError",
    "compare",
    "evaluate",
    "extract",
    "finetune",
    "fit",
    "format",
    "load",
    "reward",
    "sample",
    "vote",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "lmsi_jax.core.errors" if name == "UserError" else "lmsi_jax.library"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
