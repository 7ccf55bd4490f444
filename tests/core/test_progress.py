"""What a long stage says of itself."""

import subprocess
import sys

import jax
import jax.numpy as jnp

from lmsi_jax.core.profile import Trace

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
