"""A small run of the whole loop, through the command line."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = {
    "mesh.cpu_devices": 1, "data.num_questions": 6, "data.num_eval": 4, "data.terms": "(2,2)", "data.largest": 9,
    "sample.paths": 4, "sample.max_tokens": 48, "sample.lanes": 2, "sample.slots": 4, "sample.questions_per_shard": 3,
    "finetune.steps": 6, "finetune.batch": 4, "finetune.row_length": 256, "finetune.save_every": 2, "finetune.warmup": 1,
    "evaluate.transfer": 0, "evaluate.texts": "", "rounds": 1,
}  # fmt: skip
RECORDS = ("questions.jsonl", "held_out.jsonl", "rounds/*/*.jsonl", "eval/*/*.jsonl")


def command(*args: str, **config) -> list[str]:
    """`lmsi ...` as a separate process would be started, with a small config."""
    flags = [f"--config.{key}={value}" for key, value in config.items()]
    return [sys.executable, "-m", "lmsi_jax.cli.main", *map(str, args), *flags]


def environment(cache) -> dict[str, str]:
    """Compiled programs are kept between the processes of a test session, which start many times and see no torch."""
    path = os.pathsep.join(filter(None, (str(ROOT / "tests/without_torch"), os.environ.get("PYTHONPATH", ""))))
    return {
        **os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip


def free_port() -> int:
    """A port that is free, and so is the one before it, at which processes meet.

    It lies below the ports that the kernel gives to outgoing connections, one of which could take it before it is used.
    """
    while True:
        port = random.SystemRandom().randrange(20_001, 32_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("", port - 1))
                second.bind(("", port))
            except OSError:
                continue
        return port


def together(command: list[str], cache, count: int) -> list[subprocess.Popen]:
    """The `count` processes of one command, as if each were on a host of its own."""
    address, started = f"127.0.0.1:{free_port()}", []
    for number in range(count):
        names = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(number)}
        environ = {**environment(cache), **(names if count > 1 else {}), "NPROC": "16"}
        started.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return started


def run_workdir(workdir, *args: str, store="none", **config) -> list[str]:
    """`lmsi run` on the built-in model; without a store, so that each run does its own work."""
    flags = (f"--config={ROOT}/configs/tiny.py", f"--workdir={workdir}", f"--store={store}")
    return command("run", *flags, *args, **{**SMALL, **config})


def records(workdir: Path) -> dict[str, bytes]:
    """The records of a run, by name."""
    files = sorted(path for pattern in RECORDS for path in workdir.glob(pattern))
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}
