"""What a long stage says of itself."""

import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.text import Text

from lmsi_jax.core.profile import Trace
from lmsi_jax.core.progress import console

PROGRAM = """
import time
from lmsi_jax.core import progress
progress.STALL_SECONDS = 0.5

def wait_for_nothing():
    time.sleep({asleep})

with progress.ProgressBar("decode", 10) as bar:
    for done in range({updates}):
        time.sleep(0.2)
        bar.update(done)
    wait_for_nothing()
time.sleep(0.8)
"""


def said(asleep, updates):
    program = PROGRAM.format(asleep=asleep, updates=updates)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


def test_a_stall_says_where_it_is():
    """Catches: a run that hangs without a word; one that is taken for hanging while it works, or when it is done."""
    assert "wait_for_nothing" in said(asleep=1.2, updates=0)
    assert "Timeout" not in said(asleep=0.1, updates=6)


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("utf-8", "\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title"),
        ("utf-8", "\u4e03\ud83d \x9b2J", "\u4e03\ufffd \\x9b2J"),
        ("latin-1", "\u00fc\u4e03", "\u00fc\\u4e03"),
        ("ascii", "\u4e03", "\\u4e03"),
    ],
)
def test_text_of_any_origin_is_printed_and_obeyed_by_no_terminal(encoding, text, shown, monkeypatch):
    """Catches: an escape sequence that reaches a terminal, a character that its encoding lacks and that ends a stage."""
    for value in (text, Text(text)):
        output = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding, newline=""))
        console.print(value)
        sys.stdout.flush()
        assert output.getvalue().decode(encoding) == shown + "\n"


def test_a_trace_holds_the_steps_asked_for(tmp_path):
    """Catches: a trace that never begins after a resume, one that never ends, one for each step."""
    double = jax.jit(lambda x: 2 * x)
    for start, steps in ((0, (2, 3)), (4, (8, 9)), (0, (0, 0)), (0, (8, 9))):
        folder, done = tmp_path / f"{start}-{steps}", jnp.ones(())
        trace = Trace(steps, folder, start)
        for _ in range(5):
            trace.step(done)
            done = double(done)
        trace.close()
        assert len(list(folder.rglob("*.xplane.pb"))) == (1 if start < steps[0] <= start + 5 else 0)
