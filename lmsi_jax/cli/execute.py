"""Runs a command: its flags, its config, and the devices that it needs."""

import importlib
import os
from typing import Any

from absl import flags

from lmsi_jax.cli.commands import OF_STUDY, Command, parse
from lmsi_jax.cli.configs import load_config
from lmsi_jax.cli.recipes import root_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import STANDARD
from lmsi_jax.studies.study import load_study, plan_runs


def execute(command: Command, arguments: list[str], argv: list[str]) -> int:
    """Run a command with its arguments, and return the exit status. Raises UserError for what a user can correct."""
    values, settings = parse(command, arguments)
    settings += _shorthands(command, values)
    if command.name == "ask" and not values.config:
        values["config"].value = "hf" if values.model else "tiny"
    config: Any = _load(command, values, settings)
    _direct_output(command, values)
    if command.name == "plan":
        _describe_devices(values.topology)
    if command.uses_jax:
        _set_devices(config.mesh.cpu_devices)
    return _run(command, config, values, argv)


def _load(command: Command, values: flags.FlagValues, settings: list[str]) -> Any:
    """Return the checked config of a command; for a study, the configs of all of its runs, to which `settings` apply."""
    if command.recipe != OF_STUDY:
        return load_config(root_config(_value(values, "recipe") or command.recipe), _value(values, "config"), settings)
    study = load_study(values.config)
    for setting in settings:
        name = setting.partition("=")[0]
        if name.removeprefix("--config.") in study.varied:
            raise UserError(f"{name} would be the same in all runs, and the study {values.config} varies it; leave it out.")
    of_run = root_config(study.recipe)
    return plan_runs(study, values.workdir, lambda file, own: load_config(of_run, file, [*own, *settings]))


def _value(values: flags.FlagValues, name: str) -> Any:
    """Return the value of a flag; None if the command does not have the flag."""
    return values[name].value if name in values else None


def _shorthands(command: Command, values: flags.FlagValues) -> list[str]:
    """Return the settings that --task, --answer_type, --rankings, --model, --paths and --profile are short for."""
    task, answer_type, profile = (_value(values, name) for name in ("task", "answer_type", "profile"))
    settings = [f"--config.data.task={task or 'jsonl'}"] if task or answer_type else []
    if rankings := _value(values, "rankings"):
        settings.append(f"--config.reward.rankings={rankings}")
    if command.name == "ask":
        settings += [f"--config.model.checkpoint={values.model}"] if values.model else []
        settings += [f"--config.sample.paths={values.paths}"] if values.paths else []
    if answer_type:
        settings.append(f"--config.data.answer_type={answer_type}")
    if profile:
        first, _, last = profile.partition(":")
        if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last)):
            raise UserError(f"--profile={profile} is not FIRST:LAST, such as 10:15.")
        settings += [f"--config.{section}.profile=({first},{last})" for section in command.profiled]
    return settings


def _direct_output(command: Command, values: flags.FlagValues) -> None:
    """Print everything else to standard error when records go to standard output."""
    console.stderr = _value(values, "output") == STANDARD
    if console.stderr and not command.streams:
        raise UserError(f"lmsi {command.name} writes a folder, so --output=- cannot be standard output; name a folder.")


def _describe_devices(topology: str) -> None:
    """Set the environment so that JAX compiles for described devices and does not look for real ones."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if "cpu:" not in topology:
        # The CPU compiler stands in for that of a GPU. Its concurrent scheduler would start many operations at once, which
        # takes the memory of all of them, whereas a GPU runs one after another.
        before = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{before} --xla_cpu_enable_concurrency_optimized_scheduler=false".strip()


def _set_devices(cpu_devices: int) -> None:
    """Silence the logs of the JAX runtime and, before it starts, split the CPU into devices."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import absl.logging
    import jax

    absl.logging.set_verbosity(absl.logging.ERROR)
    # Later commands reuse compiled programs, also those of small models, which compile in less than JAX's limit of a second.
    cache = {
        "compilation_cache_dir": os.path.expanduser("~/.cache/lmsi_jax/compiled"),
        "persistent_cache_min_compile_time_secs": 0.1,
    }
    for name, value in cache.items():
        if f"JAX_{name.upper()}" not in os.environ:
            jax.config.update(f"jax_{name}", value)
    if cpu_devices:
        # A collective blocks a thread of the CPU client's pool until its partners arrive, so one thread per core is too few.
        os.environ.setdefault("NPROC", str(8 * cpu_devices))
        jax.config.update("jax_num_cpu_devices", cpu_devices)


def _run(command: Command, config: Any, values: flags.FlagValues, argv: list[str]) -> int:
    # Imports are local, so that the vote requires no accelerator, and a wrong flag fails at once.
    if command.one_process:
        from lmsi_jax.sharding import processes

        if processes.expected():
            raise UserError(
                f"lmsi {command.name} is one process, but JAX_COORDINATOR_ADDRESS or LMSI_DISTRIBUTED announces several, "
                f"which would overwrite each other's files. Unset both, or use lmsi run, with --only for one stage."
            )
    module, _, function = command.run.partition(".")
    return getattr(importlib.import_module(f"lmsi_jax.cli.{module}"), function)(config, values, argv) or 0
