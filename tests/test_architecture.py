"""The dependency direction of the packages, and where heavy libraries may be imported."""

import ast
import subprocess
import sys
from pathlib import Path

import lmsi_jax

ROOT = Path(lmsi_jax.__file__).parent
LAYERS = {
    "core": 0,
    "sharding": 1, "tokenizers": 1, "answers": 1,
    "trust": 2, "model": 2,
    "tasks": 3, "voting": 3, "checkpoint": 3,
    "formatting": 4, "decoding": 5, "training": 5,
    "evaluation": 6, "capacity": 6, "rl": 6, "scaling": 6,
    "pipeline": 7,
    "analysis": 8,
    "stages": 9,
    "recipes": 10, "review": 10,
    "studies": 11,
    "library": 12, "cli": 12, "benchmarks": 12,
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """The packages of ours that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module == "lmsi_jax":
            names = [f"lmsi_jax.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("lmsi_jax.")}
    return found


def test_packages_import_lower_layers_only():
    """Catches: a lower layer that reaches up, or two siblings that become one tangle."""
    wrong = []
    for path in ROOT.rglob("*.py"):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if package not in LAYERS:
            continue
        for other in imports(path):
            if other != package and LAYERS[other] >= LAYERS[package]:
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong, wrong


def test_every_package_is_in_the_layer_table():
    """Catches: a new package that the rule above does not know."""
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= LAYERS.keys()


def test_vote_needs_no_jax():
    """Catches: an import that makes the pure stages wait for (or fail without) an accelerator runtime."""
    code = (
        "import sys; import lmsi_jax.voting.select, lmsi_jax.voting.calibration, lmsi_jax.tasks.task, lmsi_jax.stages.vote, "
        "lmsi_jax.stages.format, lmsi_jax.analysis.report, lmsi_jax.recipes.config, lmsi_jax.cli.files; "
        "sys.exit(' '.join(m for m in ('jax', 'flax', 'orbax') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
