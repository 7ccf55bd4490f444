"""Which source code this is."""

import subprocess
from pathlib import Path

import lmsi_jax


def describe() -> str | None:
    """The commit of a source checkout, with "-dirty" where it was changed; None for an installed package."""
    root = Path(lmsi_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
