"""What the README, the configs and the launchers promise."""

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from etils import epath

from lmsi_jax.checkpoint.config import resolve_numerics
from lmsi_jax.cli.commands import command_of, parse
from lmsi_jax.cli.configs import load_config
from lmsi_jax.cli.recipes import root_config
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.recipes.config import Config
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.stages import checks
from lmsi_jax.studies.study import load_study, plan_runs
from lmsi_jax.tasks.sets import DATASETS

ROOT = Path(__file__).parents[1]
STUDIES = [*sorted((ROOT / "configs/studies").glob("*.py")), *sorted((ROOT / "configs/paper").glob("*.py"))]
CONFIGS = [*sorted((ROOT / "configs").glob("*.py")), *STUDIES]
FOLDERS = ("configs", "launch", "lmsi_jax")
READMES = [ROOT / "README.md", *sorted(file for name in FOLDERS for file in (ROOT / name).rglob("README.md"))]
TEXTS = [*READMES, *CONFIGS, *sorted((ROOT / "launch").glob("*.sh"))]


def commands():
    for text in TEXTS:
        joined = text.read_text().replace("\\\n", " ")
        for line in re.findall(r"^\s*(?:\.venv/bin/)?(lmsi [a-z]+ (?:[a-z]+ )?--.*)$", joined, re.MULTILINE):
            for part in line.partition(" #")[0].replace('"$@"', "").split(" | "):
                yield pytest.param(part, id=f"{text.name}: {part[:60]}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_are_ones_that_run(line):
    """Catches: a documented command with a flag, file or setting that is not there."""
    _, *words = shlex.split(line)
    command = command_of(words)
    values, settings = parse(command, words[len(command.name.split()) :])
    file = values["config"].value if "config" in values else None
    file = str(ROOT / file) if file and file.endswith(".py") else file
    if command.name == "sweep":
        study = load_study(file)
        plan_runs(study, "runs", lambda path, own: load_config(root_config(study.recipe), path, [*own, *settings]))
    else:
        load_config(root_config(command.recipe), file, settings)


def own_configs():
    """The shipped configs of the loop on the built-in model."""
    for path in CONFIGS:
        if path.name.startswith("tiny") and "lmsi run" in path.read_text():
            config = load_config(Config, str(path), [])
            if config.model.checkpoint == "builtin":
                yield pytest.param(config, id=path.name)


@pytest.mark.parametrize("config", list(own_configs()))
def test_prompts_and_rows_of_shipped_configs_fit(config):
    """Catches: a shipped config whose questions and paths may not fit its training rows, which only a start of it shows."""
    few = dataclasses.replace(config.data, num_questions=10, num_eval=10)
    config = resolve_numerics(dataclasses.replace(config, data=few), "cpu")
    assert " of 2048" in checks.lengths(config, Runtime(MeshConfig(), epath.Path("metrics")), "model", trains=True)


def test_data_sets_of_studies_have_the_source_that_they_name():
    """Catches: a table of the paper that ends with "TensorFlow Datasets has no gsm8k" on a machine with eight GPUs."""
    for path in [*STUDIES, *(ROOT / "configs").glob("*.py")]:
        text = path.read_text()
        named = re.findall(r'"data.task": "(\w+)"([^}]*)', text) + re.findall(r'"task": "(\w+)"([^}]*)', text)
        default = re.search(r'"settings": \{[^}]*"data.source": "tfds"', text) is not None
        for task, own in named:
            source = re.search(r'source": "(\w+)"', own)
            if source and source[1] == "tfds" or not source and default:
                assert DATASETS[task].read_tfds is not None, (path, task)


def test_every_config_is_listed():
    """Catches: a config or a study that nobody finds."""
    text = "".join((ROOT / name).read_text() for name in ("configs/README.md", "configs/studies/README.md"))
    for path in CONFIGS:
        assert f"`{path.name}`" in text, path


@pytest.mark.parametrize("file", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readmes_name_files_that_exist(file):
    """Catches: a pointer or a link to a file that was moved, a picture that is missing."""
    text = file.read_text()
    for name in re.findall(r"`((?:lmsi_jax|configs|launch|tests)/[\w/]+\.\w+)`", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (file.parent / link).exists(), link


def test_the_readme_is_short():
    """Catches: a first page that grows back into a manual."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("script", sorted((ROOT / "launch").glob("*.sh")), ids=lambda path: path.name)
def test_launchers_are_valid_shell(script):
    """Catches: a slip in a script that no test runs."""
    subprocess.run(["bash", "-n", script], check=True)


def test_the_built_in_model_is_small():
    """Catches: training state shipped beside the parameters."""
    files = [path for path in (ROOT / "lmsi_jax/assets").rglob("*") if path.is_file()]
    assert 1_000_000 < sum(path.stat().st_size for path in files) < 12_000_000
