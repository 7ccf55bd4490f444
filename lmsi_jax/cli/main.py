"""`lmsi COMMAND --flag=value ... --config.section.key=value ...`; the commands are those of `commands.py`."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from absl import flags

import lmsi_jax
from lmsi_jax.cli.commands import COMMANDS, Command, command_usage, parse, usage
from lmsi_jax.cli.configs import load_config
from lmsi_jax.core import secrets
from lmsi_jax.core.errors import Terminated, UserError, nearest
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import STANDARD
from lmsi_jax.core.text import printable

BUCKET_LIBRARIES = ("gcsfs", "google", "aiohttp")  # whose errors are no OSError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, and turn what a user can put right into one paragraph and exit status 2."""
    argv = secrets.scrub(sys.argv if argv is None else argv)
    sys.excepthook = secrets.print_exception
    sys.unraisablehook = _send_again
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    for stream in (sys.stdout, sys.stderr):  # a text that the terminal's encoding lacks is no reason to stop
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(argv)
    except UserError as error:
        status = _fail(str(error))
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        status = _fail(f"{name}{error.strerror or error}. What is finished is kept: mend that and start again.")
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in BUCKET_LIBRARIES:
            raise
        status = _fail(f"A bucket does not answer: {type(error).__name__}: {error}. What is finished is kept: start again.")
    except (KeyboardInterrupt, Terminated) as stop:
        print("\nInterrupted. Start the same command again to go on from here.", file=sys.stderr)
        status = 143 if isinstance(stop, Terminated) else 130
    sys.exit(status)


def _on_sigterm(number: int, frame: Any) -> None:
    raise Terminated


def _send_again(ignored: Any) -> None:
    """Send a signal again whose exception was raised where Python ignores exceptions, as in a callback of a garbage collection.

    Other exceptions that are ignored there are printed, as `sys.unraisablehook` does.
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
    if names[0] not in COMMANDS:
        near = nearest(names[0], COMMANDS)
        raise UserError(f"There is no command '{names[0]}'; the nearest is '{near}'. Commands: {', '.join(COMMANDS)}.")
    command = COMMANDS[names[0]]
    if wants_help:
        print(command_usage(command))
        return 0
    values, settings = parse(command, words[1:])
    settings += _shorthands(command, values)
    config: Any = load_config(command.config, _value(values, "config"), settings)
    _direct_output(command, values)
    if command.name == "plan":
        _describe_devices(values.topology)
    if command.uses_jax:
        _set_devices(config.mesh.cpu_devices)
    return _run_command(command, config, values, argv)


def _value(values: flags.FlagValues, name: str) -> Any:
    """The value of a flag; None where the command does not have it."""
    return values[name].value if name in values else None


def _shorthands(command: Command, values: flags.FlagValues) -> list[str]:
    """The settings that --task, --answer_type and --profile are short for."""
    task, answer_type, profile = (_value(values, name) for name in ("task", "answer_type", "profile"))
    settings = [f"--config.data.task={task or 'jsonl'}"] if task or answer_type else []
    if answer_type:
        settings.append(f"--config.data.answer_type={answer_type}")
    if profile:
        first, _, last = profile.partition(":")
        if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last)):
            raise UserError(f"--profile={profile} is not FIRST:LAST, two steps such as 10:15.")
        sections = {"pretrain": ("train",), "sample": ("sample",), "finetune": ("finetune",)}
        for section in sections.get(command.name, ("sample", "finetune")):
            settings.append(f"--config.{section}.profile=({first},{last})")
    return settings


def _direct_output(command: Command, values: flags.FlagValues) -> None:
    """Where records go to standard output, everything else that is printed goes to standard error."""
    console.stderr = _value(values, "output") == STANDARD
    if console.stderr and not command.streams:
        raise UserError(f"lmsi {command.name} writes a folder, so --output=- cannot be standard output; name a folder.")


def _describe_devices(topology: str) -> None:
    """Make JAX plan for devices instead of looking for them."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if "cpu:" not in topology:
        # The CPU's compiler stands in for a GPU's. It would begin many things at once, and hold what they all need; a GPU
        # does one after another.
        before = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{before} --xla_cpu_enable_concurrency_optimized_scheduler=false".strip()


def _set_devices(cpu_devices: int) -> None:
    """Quiet the runtime, and split the CPU before it starts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import absl.logging
    import jax

    absl.logging.set_verbosity(absl.logging.ERROR)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the next command with these shapes need not compile them again
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/lmsi_jax/compiled"))
    if cpu_devices:
        # A collective holds a thread of the CPU client's pool until its partners come; with a thread a core they may not.
        os.environ.setdefault("NPROC", str(8 * cpu_devices))
        jax.config.update("jax_num_cpu_devices", cpu_devices)


def _run_command(command: Command, config: Any, values: flags.FlagValues, argv: list[str]) -> int:
    # Imported here: the vote needs no accelerator, and a wrong flag no minute of start-up.
    if command.one_process:
        from lmsi_jax.sharding import processes

        if processes.expected():
            raise UserError(
                f"lmsi {command.name} is one process, and JAX_COORDINATOR_ADDRESS or LMSI_DISTRIBUTED says that there are "
                f"several, which would write over each other. Unset both, or use lmsi run, with --only for one stage."
            )
    if command.name == "pretrain":
        from lmsi_jax.pipeline.pretrain import pretrain

        pretrain(config, values.workdir, argv)
    elif command.name == "run":
        from lmsi_jax.pipeline.runner import run
        from lmsi_jax.sharding import processes

        processes.join()
        console.quiet = not processes.is_first()
        run(
            config,
            values.workdir,
            argv,
            only=values.only or "",
            start_from=values["from"].value or "",
            dry_run=bool(values["dry-run"].value),
            reconfigure=bool(values.reconfigure),
            any_code=bool(values["any-code"].value),
        )
    else:
        from lmsi_jax.cli import stages

        return getattr(stages, command.name.replace("import", "import_"))(config, values) or 0
    return 0


if __name__ == "__main__":
    main()
