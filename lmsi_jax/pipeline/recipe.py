"""A recipe is a list of stages, which `runner.run` runs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Stage

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Check(Generic[C]):
    """A check of a run before anything is written or compiled.

    `run` returns a description of what it checked, or raises UserError with the remedy.
    """

    name: str
    run: Callable[[C, Runtime], str]


@dataclasses.dataclass(frozen=True)
class Recipe(Generic[C]):
    """The stages of a run, in order, and the checks that come before them. All of them get the root config."""

    name: str
    stages: Callable[[C, RunFolder], list[Stage]]
    checks: Sequence[Check[C]]
    show: Callable[[RunFolder], None] = lambda folder: None  # prints the results of a finished run
