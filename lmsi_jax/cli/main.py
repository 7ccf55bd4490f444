"""`lmsi COMMAND --flag=value ... --config.section.key=value ...`; `commands.py` lists the commands."""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from absl import flags

import lmsi_jax
from lmsi_jax.cli.commands import Command, command_of, command_usage, parse, usage
from lmsi_jax.cli.configs import load_config
from lmsi_jax.cli.recipes import root_config
from lmsi_jax.core import secrets
from lmsi_jax.core.errors import Terminated, UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import STANDARD
from lmsi_jax.core.text import printable
from lmsi_jax.studies.study import Study, load_study, plan_runs

BUCKET_LIBRARIES = ("gcsfs", "google", "aiohttp")  # their errors are not OSErrors


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command. An error that a user can correct is printed as one paragraph, with exit status 2."""
    argv = secrets.scrub(sys.argv if argv is None else argv)
    sys.excepthook = secrets.print_exception
    sys.unraisablehook = _send_again
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
    for stream in (sys.stdout, sys.stderr):  # text that the terminal cannot encode must not stop a run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(argv)
    except UserError as error:
        status = _fail(str(error))
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        status = _fail(f"{name}{error.strerror or error}. Finished work is kept: correct this and start again.")
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in BUCKET_LIBRARIES:
            raise
        status = _fail(f"A bucket does not respond: {type(error).__name__}: {error}. Finished work is kept: start again.")
    except (KeyboardInterrupt, Terminated) as stop:
        print("\nInterrupted. Start the same command again to resume.", file=sys.stderr)
        status = 143 if isinstance(stop, Terminated) else 130
    sys.exit(status)


def _on_sigterm(number: int, frame: Any) -> None:
    raise Terminated


def _send_again(ignored: Any) -> None:
    """Send a signal again if its exception was raised where Python ignores exceptions, as in a garbage collection callback.

    Other exceptions that are ignored there are printed, as by the default `sys.unraisablehook`.
    """
    number = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}.get(ignored.exc_type)
    if number is None:
        sys.__unraisablehook__(ignored)
    else:
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def _fail(message: str) -> int:
    print(f"lmsi: {printable(secrets.redact(message))}", file=sys.stderr)
    return 2


def _dispatch(argv: list[str]) -> int:
    words = argv[1:]
    if words[:1] == ["--version"]:
        print(lmsi_jax.__version__)
        return 0
    wants_help = not words or any(word in ("-h", "--help", "help") for word in words)
    names = [word for word in words if word not in ("-h", "--help", "help")]
    if wants_help and not names:
        print(usage())
        return 0
    command = command_of(names)
    if wants_help:
        print(command_usage(command))
        return 0
    values, settings = parse(command, words[len(command.name.split()) :])
    settings += _shorthands(command, values)
    if command.name == "ask" and not values.config:
        values["config"].value = "hf" if values.model else "tiny"
    recipe = _value(values, "recipe")
    config: Any = _load(command, root_config(recipe) if recipe else command.config, values, settings)
    _direct_output(command, values)
    if command.name == "plan":
        _describe_devices(values.topology)
    if command.uses_jax:
        _set_devices(config.mesh.cpu_devices)
    return _run_command(command, config, values, argv)


def _load(command: Command, root: type, values: flags.FlagValues, settings: list[str]) -> Any:
    """Return the checked config of a command; for a study, the configs of all of its runs, to which `settings` apply."""
    if command.config is not Study:
        return load_config(root, _value(values, "config"), settings)
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
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # later commands reuse compiled programs
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/lmsi_jax/compiled"))
    if cpu_devices:
        # A collective blocks a thread of the CPU client's pool until its partners arrive, so one thread per core is too few.
        os.environ.setdefault("NPROC", str(8 * cpu_devices))
        jax.config.update("jax_num_cpu_devices", cpu_devices)


def _run_command(command: Command, config: Any, values: flags.FlagValues, argv: list[str]) -> int:
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


if __name__ == "__main__":
    main()
