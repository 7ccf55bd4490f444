"""Compare two expressions with math-verify, in a separate process that ends when a comparison takes too long.

The limit is on CPU time, which a busy machine does not lengthen, so every host counts the same votes.
"""

import atexit
import contextlib
import functools
import json
import os
import re
import select
import signal
import subprocess
import sys
from typing import Any

from lmsi_jax.core.errors import UserError

CPU_SECONDS = 5.0  # CPU time of one comparison; a pair that takes longer counts as not equal
WAIT_SECONDS = 60.0  # elapsed time of one comparison, for a process that uses no CPU time; after it, not equal
START_SECONDS = 300.0  # for the process to import math-verify


@functools.lru_cache(maxsize=100_000)
def equal(a: str, b: str) -> bool:
    """Return whether two LaTeX expressions are mathematically equal, whatever their order."""
    a, b = sorted((a, b))
    return a == b or _worker().ask(a, b)


class Worker:
    """The process that runs math-verify. It is started on first use, and again after it has ended."""

    def __init__(self, cpu_seconds: float = CPU_SECONDS, wait_seconds: float = WAIT_SECONDS) -> None:
        self._cpu_seconds, self._wait_seconds = cpu_seconds, wait_seconds
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def ask(self, a: str, b: str) -> bool:
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([a, b]).encode() + b"\n")
            process.stdin.flush()
            answer = self._line(process, self._wait_seconds)
        except OSError:  # the process has died
            answer = None
        if not answer:
            self.stop()
        return answer == b"true"

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "lmsi_jax.answers.equality", str(self._cpu_seconds)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._process = process
        if self._line(process, START_SECONDS) != b"ready":
            self.stop()
            raise UserError(
                "Answers of type 'math' are compared by math-verify, which does not start here; install it with "
                "`pip install 'lmsi_jax[math]'`."
            )
        return process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        return process.stdout.readline().strip() if ready else None

    def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError), self._process as process:  # waits for it, and closes its streams
                process.kill()
        self._process = None


@functools.cache
def _worker() -> Worker:
    return Worker()


def _serve(cpu_seconds: float) -> None:
    """Answer each JSON pair of expressions on stdin with "true" or "false". A pair that takes too long ends the process."""
    import logging

    import math_verify  # noqa: F401  imported before the parent reads "ready"

    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the signal ends the process, even inside a long multiplication
    print("ready", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            same = _same(*json.loads(line))
        except Exception:  # a parser may fail in any way on a model's text; a failed comparison is not equal
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(same), flush=True)


# Notation that math-verify ignores. Expressions with any of it are equal only when their texts are.
_UNREAD = re.compile(r"(?<!\\log)_|'|\\overline|\\(?:b|p)?mod|\^\s*\{?\s*(?:T|\\top)|dots|\\bar|\\hat|\\text|\d:\d")


def _same(first: str, second: str) -> bool:
    import math_verify

    texts = (first, second)
    if any(map(_UNREAD.search, texts)) or len({_bracket(text) for text in texts}) > 1:
        return False
    a, b = (math_verify.parse(f"${text}$", parsing_timeout=None, raise_on_error=False) for text in texts)
    if not a or not b:
        return False
    x, y = _value(a[0]), _value(b[0])
    if x is not None and y is not None:  # compare the values: math-verify takes some unequal numbers for equal
        return _close(x, y)
    return all(math_verify.verify(p, q, timeout_seconds=None, raise_on_error=False) for p, q in ((a, b), (b, a)))


def _bracket(text: str) -> str:
    """Return the brackets around an entire expression ("," for a bare list): a set, a pair, an interval and a list differ."""
    for opening, closing in (("\\{", "\\}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]")):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and ("," in inner or opening == "\\{") and "(" not in inner:
            return opening + closing
    return "," if re.search(r",(?![^({\[]*[)}\]])", text) else ""


def _value(expression: Any) -> Any:
    """Return a SymPy expression that is a number, with i as the imaginary unit, or None when it is not a number."""
    import sympy

    if not hasattr(expression, "free_symbols") or isinstance(
        expression, sympy.Rel | sympy.Set | sympy.Tuple | sympy.MatrixBase
    ):
        return None
    symbols = {symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"}
    if expression.free_symbols - symbols.keys():
        return None
    value = expression.subs(symbols)
    return value if value.is_number else None


def _close(x: Any, y: Any) -> bool:
    """Return whether two numbers agree to 45 digits, or to nine when one of them is a decimal."""
    import sympy

    digits = 9 if x.has(sympy.Float) or y.has(sympy.Float) else 45
    if x == y:
        return True
    difference, size = abs((x - y).evalf(60)), abs(x.evalf(60))
    return bool(difference.is_finite and size.is_finite and difference <= sympy.Float(10, 60) ** -digits * size)


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
