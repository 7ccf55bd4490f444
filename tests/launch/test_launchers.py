"""The launchers: what they would run, word for word, and what they do when a slice is taken away."""

import os
import random
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
RUN = ("--config=configs/hf.py", "--workdir=/shared/my run")
TPU = {"TPU": "lmsi", "ZONE": "us-east5-a", "TYPE": "v5p-128", "WORKDIR": "gs://bucket/run", "SPOT": "1", "KEEP": "0"}
GKE = {"NAME": "lmsi", "IMAGE": "host/image", "ACCELERATOR": "tpu-v5p-slice", "TOPOLOGY": "4x4x4", "HOSTS": "16"}
SCRIPTS = {
    "gpu.sh": ({}, RUN),
    "ssh_hosts.sh": ({"HOSTS": "me@one two three"}, RUN),
    "slurm.sbatch": ({}, RUN),
    "tpu_pod.sh": (TPU, ("--config=configs/hf.py", "--config.data.task=gsm8k")),
    "gke.sh": (GKE, ("--config=configs/hf.py", "--workdir=gs://bucket/run")),
}


def launch(script, *arguments, path=None, **variables):
    names = {"PATH": os.environ["PATH"], "HOME": "/root", "TMPDIR": "/tmp", **variables}
    names["PATH"] = f"{path}:{names['PATH']}" if path else names["PATH"]
    command = ["bash", str(ROOT / "launch" / script), *arguments]
    return subprocess.run(command, env=names, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_dry_run_prints_what_would_run(script):
    """Catches: a command that changes unseen, a name with a space that falls apart, a dry run that runs something."""
    variables, arguments = SCRIPTS[script]
    done = launch(script, "--dry-run", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (GOLDEN / f"{script}.txt").read_text()


@pytest.mark.parametrize(("script", "name"), [("tpu_pod.sh", "TPU"), ("gke.sh", "NAME"), ("ssh_hosts.sh", "HOSTS")])
def test_a_missing_setting_is_named(script, name):
    """Catches: a slice made with an empty name."""
    done = launch(script, "--dry-run", *RUN)
    assert done.returncode == 2 and f"set {name}," in done.stderr and not done.stdout


def test_shell_scripts_are_clean():
    """Catches: what shellcheck knows, word splitting above all."""
    checker = shutil.which("shellcheck") or str(Path(sys.executable).parent / "shellcheck")
    scripts = [str(path) for pattern in ("*.sh", "*.sbatch") for path in sorted((ROOT / "launch").glob(pattern))]
    done = subprocess.run([checker, "-x", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_only_an_own_jobset_is_replaced():
    """Catches: a JobSet of the same name, which somebody else runs, that is deleted or changed."""
    text, _, commands = (GOLDEN / "gke.sh.txt").read_text().partition("\n+ ")
    ((label, value),) = yaml.safe_load(text)["metadata"]["labels"].items()
    (deletion,) = [line for line in commands.splitlines() if " delete " in line]
    assert f"--selector={label}={value} " in deletion and " apply " not in commands


def test_the_jobset_is_one():
    """Catches: a manifest that Kubernetes would not take: a number as text, a field at the wrong depth, a name left over."""
    text = (GOLDEN / "gke.sh.txt").read_text().partition("\n+ ")[0]
    jobset = yaml.safe_load(text)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(jobset["spec"]) == {"failurePolicy", "replicatedJobs"} and jobset["metadata"]["name"] == "lmsi"
    (job,) = jobset["spec"]["replicatedJobs"]
    assert set(job) == {"name", "replicas", "template"}
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == 16 and spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x4"
    (container,) = pod["containers"]
    assert container["command"] + container["args"] == ["lmsi", "run", *SCRIPTS["gke.sh"][1]]
    assert container["env"] == [{"name": "LMSI_DISTRIBUTED", "value": "1"}]
    assert container["resources"]["limits"] == {"google.com/tpu": 4} == container["resources"]["requests"]


def test_hosts_keep_what_the_launcher_did_not_put_there():
    """Catches: a start that deletes configs or data in a host's ~/lmsi_jax, or that keeps modules of an older checkout."""
    said = launch("ssh_hosts.sh", "--dry-run", *RUN, HOSTS="one").stdout
    copies = [shlex.split(line)[2:] for line in said.splitlines() if line.startswith("+ rsync ")]
    assert [words[-2:] for words in copies if "--delete" in words] == [["lmsi_jax/", "one:lmsi_jax/lmsi_jax/"]]
    assert [words[-2:] for words in copies if "--delete" not in words] == [["./", "one:lmsi_jax/"]]


def manifest(*arguments, **changes):
    """The JobSet that gke.sh would submit."""
    done = launch("gke.sh", "--dry-run", *arguments, **{**GKE, **changes})
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout.partition("\n+ ")[0])


def test_arguments_reach_the_jobset_as_they_are():
    """Catches: a character that sed, the shell, YAML or Kubernetes reads as its own; text filled in that is filled in again."""
    pieces = ["|", "&", "\\n", "\n", "\t", '"', "'", "\\", " ", "$", "$$", "$(NAME)", "`ls`", "#", ": ", "- ", "{", "%", "é"]
    pieces += ["😀", "NAME", "IMAGE", "HOSTS", "ARGUMENTS", "\x85", "\u2028", "\ufeff", "\x7f", "=", "--config.sample.stops="]
    draw = random.Random(0)
    mixed = ["".join(draw.choices(pieces, k=draw.randint(0, 6))) for _ in range(300)]
    every = [chr(i) for i in [*range(1, 0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 0x101)]]
    arguments = mixed + ["".join(every[i : i + 10_000]) for i in range(0, len(every), 10_000)]
    (job,) = manifest(*arguments)["spec"]["replicatedJobs"]
    passed = job["template"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [text.replace("$$", "$") for text in passed] == arguments  # Kubernetes reads $$ as $, and $( as a variable


def test_settings_reach_the_jobset_as_they_are():
    """Catches: an image or a name that ends up as another, or as a number; hosts that are no number."""
    image = "host:5000/a|b&c/NAME@sha256:0"
    jobset = manifest(NAME="123", IMAGE=image, TOPOLOGY="2x2")
    (job,) = jobset["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert jobset["metadata"]["name"] == "123" and pod["containers"][0]["image"] == image
    done = launch("gke.sh", "--dry-run", *RUN, **{**GKE, "HOSTS": "many"})
    assert done.returncode != 0 and "HOSTS=many must be a number" in done.stderr and "kubectl" not in done.stdout


GCLOUD = """#!/bin/bash
echo "$*" >> {log}
case "$*" in
  *describe*) cat {state} 2>/dev/null || exit 1 ;;
  *create*) echo READY > {state} ;;
  *delete*) rm {state} ;;
  *"lmsi run"*) [ -e {ran} ] || {{ touch {ran}; echo PREEMPTED > {state}; exit 1; }} ;;
esac
"""


def test_a_preempted_slice_is_made_anew(tmp_path):
    """Catches: a run that ends with its slice, a slice made twice, results that nobody fetches."""
    names = {name: str(tmp_path / name) for name in ("log", "state", "ran")}
    tool = tmp_path / "gcloud"
    tool.write_text(GCLOUD.format(**names))
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    done = launch("tpu_pod.sh", "--config=configs/hf.py", path=tmp_path, **TPU, PAUSE="0")
    assert done.returncode == 0, done.stderr
    words = ("describe", "create", "scp", "install.sh", "lmsi run", "delete", "rsync")
    seen = [next((word for word in words if word in line), "?") for line in Path(names["log"]).read_text().splitlines()]
    attempt = ["create", "scp", "install.sh", "lmsi run"]
    assert seen == ["describe", *attempt, "describe", "describe", "delete", *attempt, "rsync", "delete"]


def test_a_stopped_slice_is_left_alone(tmp_path):
    """Catches: a slice that somebody stopped on purpose, deleted with its disks."""
    tool, log = tmp_path / "gcloud", tmp_path / "log"
    tool.write_text(f'#!/bin/bash\necho "$*" >> {log}\ncase "$*" in *describe*) echo STOPPED ;; esac\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    done = launch("tpu_pod.sh", "--config=configs/hf.py", path=tmp_path, **TPU, PAUSE="0")
    assert done.returncode == 2 and "the slice lmsi is STOPPED" in done.stderr
    assert "delete" not in log.read_text() and "create" not in log.read_text()


def test_the_work_directory_is_one_word_on_the_workers():
    """Catches: a folder with a space or a semicolon in its name that the workers' shell takes apart."""
    done = launch("tpu_pod.sh", "--dry-run", "--config=configs/hf.py", **{**TPU, "WORKDIR": "gs://bucket/my run; ls"})
    (line,) = [line for line in done.stdout.splitlines() if "lmsi run" in line]
    command = shlex.split(line)[-1].removeprefix("--command=")
    assert "--workdir=gs://bucket/my run; ls" in shlex.split(command)


def test_changes_that_a_slice_would_not_get_are_named(tmp_path):
    """Catches: a run of the last commit that its user takes for one of the files as they are."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "changed.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=all"]):
        subprocess.run([*git, *command], check=True)
    command = ["bash", str(tmp_path / "launch" / "tpu_pod.sh"), "--dry-run", "--config=configs/hf.py"]
    start = lambda: subprocess.run(command, env={**os.environ, **TPU}, capture_output=True, text=True, check=True)  # noqa: E731
    assert not start().stderr
    (tmp_path / "changed.py").write_text("1")
    (tmp_path / "new.py").touch()
    said = start().stderr
    assert "changed.py" in said and "new.py" in said and "commit" in said


def test_a_run_that_fails_is_not_repeated(tmp_path):
    """Catches: an endless loop of slices for a run with a wrong setting."""
    tool = tmp_path / "gcloud"
    tool.write_text('#!/bin/bash\ncase "$*" in *describe*) echo READY ;; *"lmsi run"*) exit 2 ;; esac\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    assert launch("tpu_pod.sh", "--config=configs/hf.py", path=tmp_path, **TPU, PAUSE="0").returncode == 1


@pytest.mark.parametrize("name", ["Dockerfile", "tpu_pod.sh", "gpu.sh"])
def test_what_is_installed_opens_a_bucket(name):
    """Catches: a launcher that takes --workdir=gs://... and installs nothing that can read or write there."""
    extra = re.search(r"\.\[(\w+)\]", (ROOT / "launch" / name).read_text())[1]
    requirements = re.search(rf'"{extra}": \[(.*)\],$', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]
    assert "gcsfs" in requirements
    assert "\ngcsfs==" in (ROOT / "launch/constraints.txt").read_text()
