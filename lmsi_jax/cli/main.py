"""`lmsi COMMAND --flag=value ... --config.section.key=value ...`; `commands.py` lists the commands."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import lmsi_jax
from lmsi_jax.cli.commands import command_of, command_usage, usage
from lmsi_jax.core import secrets
from lmsi_jax.core.errors import Terminated, UserError
from lmsi_jax.core.text import printable

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
    from lmsi_jax.cli.execute import execute  # imports much, which the help does not need

    return execute(command, words[len(command.name.split()) :], argv)


if __name__ == "__main__":
    main()
