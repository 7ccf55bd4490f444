"""Render a chat template, which is code that came with a model, in a separate process with limits on memory and CPU time.

It reads one JSON object from standard input and writes {"texts": [...]} or {"error": "..."}; `chat.py` runs it as a script.
"""

import contextlib
import json
import resource
import sys
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


def render(source: str, conversations: list[dict[str, Any]], longest: int) -> list[str]:
    """Return the text of each conversation, given as template variables. Raises ValueError beyond `longest` characters."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _raise
    template = environment.from_string(source)
    texts = [template.render(variables) for variables in conversations]
    if sum(map(len, texts)) > longest:
        raise ValueError(f"it writes more than {longest} characters")
    return texts


def _raise(message: str) -> Any:
    raise jinja2.TemplateError(message)


def main() -> None:
    request = json.load(sys.stdin)
    for limit, value in ((resource.RLIMIT_AS, request["memory"]), (resource.RLIMIT_CPU, request["seconds"])):
        with contextlib.suppress(ValueError, OSError):  # some systems, such as macOS, cannot limit memory
            resource.setrlimit(limit, (value, value))
    try:
        reply: dict[str, Any] = {"texts": render(request["source"], request["conversations"], request["longest"])}
    except Exception as error:  # whatever a template may raise
        reply = {"error": f"{type(error).__name__}: {error}"}
    json.dump(reply, sys.stdout)


if __name__ == "__main__":
    main()
