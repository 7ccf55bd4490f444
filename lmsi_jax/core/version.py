"""The version of the source code."""

import functools
import hashlib
import subprocess
from pathlib import Path

import lmsi_jax

PACKAGE = Path(lmsi_jax.__file__).parent
SOURCES = ("*.py", "*.jinja", "*.jsonl")  # code, templates of the report, exemplars of the prompts


@functools.cache
def code_version() -> str:
    """Return the package's version and a digest of all of its sources, the same in a checkout and when installed."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in PACKAGE.rglob(pattern)):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{lmsi_jax.__version__}+{digest.hexdigest()[:12]}"


def describe() -> str | None:
    """Return the commit of a source checkout, with "-dirty" for uncommitted changes; None for an installed package."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
