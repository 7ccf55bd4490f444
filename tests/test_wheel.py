"""The wheel: what `pip install lmsi_jax-*.whl` gives to somebody without a checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmsi_jax.core.python_file import shipped
from tests.runs import ROOT, SMALL, environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an installation of the wheel, apart from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("lmsi_jax", "configs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "README.md"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source"]
    subprocess.run(build, check=True, timeout=120)
    (wheel,) = folder.glob("lmsi_jax-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "installed", wheel], check=True, timeout=120)
    shutil.rmtree(folder / "source")
    return folder / "installed"


def lmsi(installed, cache, folder, *arguments):
    """`lmsi` of the installation, started in an empty folder."""
    folder.mkdir(exist_ok=True)
    environ = environment(cache)
    environ["PYTHONPATH"] = os.pathsep.join([str(installed), environ["PYTHONPATH"]])
    command = [sys.executable, "-m", "lmsi_jax.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=280, check=False)


@pytest.mark.slow
def test_the_loop_runs_from_the_wheel_alone(installed, compile_cache, tmp_path):
    """Catches: configs, templates, exemplars or the built-in model that only a checkout has."""
    settings = [f"--config.{key}={value}" for key, value in SMALL.items()]
    done = lmsi(installed, compile_cache, tmp_path / "empty", "run", "--config=tiny", "--workdir=runs/tiny", *settings)
    assert done.returncode == 0, done.stderr
    assert "CoT, greedy" in done.stdout and (tmp_path / "empty/runs/tiny/report.html").exists()


def test_configs_are_listed_and_loaded_by_name(installed, compile_cache, tmp_path):
    """Catches: a config that the wheel lacks, and a name that is looked for in the current folder."""
    done = lmsi(installed, compile_cache, tmp_path, "configs")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line and not line.startswith("They"))
    assert lines.keys() == shipped().keys() and lines["tiny"].startswith("The full loop on the built-in model")
    assert f"{installed}/lmsi_jax/configs" in done.stdout
    study = ("sweep", "--config=studies/formats", "--workdir=runs", "--dry-run")
    assert "All 9 runs" in lmsi(installed, compile_cache, tmp_path, *study).stdout
    wrong = lmsi(installed, compile_cache, tmp_path, "run", "--config=tinny", "--workdir=runs")
    assert wrong.returncode == 2 and "the nearest is tiny. `lmsi configs` lists all." in wrong.stderr
    gone = lmsi(installed, compile_cache, tmp_path, "run", "--config=tiny.py", "--workdir=runs")
    assert gone.returncode == 2 and "--config=tiny.py does not exist" in gone.stderr


def test_a_source_archive_has_the_configs(tmp_path):
    """Catches: a wheel built from the source archive, which then has no configs."""
    for name in ("lmsi_jax/core", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("setup.py", "README.md", "lmsi_jax/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, "setup.py", "-q", "sdist"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (root,) = Path(tmp_path / "unpacked").iterdir()
    assert (root / "configs/tiny.py").exists() and (root / "configs/studies/formats.py").exists()
