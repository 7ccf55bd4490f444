"""Which source code this is."""

import functools
import hashlib
import subprocess
from pathlib import Path

import lmsi_jax

PACKAGE = Path(lmsi_jax.__file__).parent
SOURCES = ("*.py", "*.jinja", "*.jsonl")  # code, templates of the report, exemplars of the prompts


@functools.cache
def code_version() -> str:
    """The package's version and a digest of all of its sources: equal where the code is, in a checkout or installed."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in PACKAGE.rglob(pattern)):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{lmsi_jax.__version__}+{digest.hexdigest()[:12]}"


def describe() -> str | None:
    """The commit of a source checkout, with "-dirty" where it was changed; None for an installed package."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
