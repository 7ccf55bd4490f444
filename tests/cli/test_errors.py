"""Bad input: one paragraph that names the numbers, the cause and the remedy; exit status 2; nothing written."""

import json
import signal
import subprocess
import sys

import pytest

from lmsi_jax.checkpoint.folder import BUILTIN
from lmsi_jax.cli.main import main
from tests.runs import ROOT, SMALL, environment, run_workdir

GOOD = '{"id": "%d", "question": "1 + 1?"}\n'
FILES = {
    "duplicate": GOOD % 1 + GOOD % 2 + GOOD % 1,
    "no_question": GOOD % 1 + '{"id": "2", "prompt": "1 + 1?"}\n',
    "broken": "".join(GOOD % i for i in range(16)) + '{"id": "16", "question": "1 +\n',
    "empty": "",
    "long": json.dumps({"id": "long", "question": "How many? " * 800}) + "\n",
}


def run_main(capsys, *args: str, **config) -> str:
    """What `lmsi ARGS` prints on its way out with status 2."""
    flags = [f"--config.{key}={value}" for key, value in {**SMALL, "mesh.cpu_devices": 0, **config}.items()]
    with pytest.raises(SystemExit) as stop:
        main(["lmsi", *args, *flags])
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured.out + captured.err
    message = captured.err.strip()
    assert message.startswith("lmsi: ") and "\n" not in message and "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sample.pathz": 3}, "Unknown config key 'sample.pathz'. The nearest known key is 'sample.paths'"),
        ({"sample.paths": 0}, "sample.paths=0: a vote needs at least one path"),
        ({"sample.temperature": -1}, "sample.temperature=-1.0 is negative"),
        ({"mesh.data": 3}, "mesh.data=3, mesh.fsdp=1, mesh.tensor=1, mesh.expert=1 needs 3 devices, and there are 8"),
        ({"mesh.tensor": 8}, "does not divide over 8 devices"),
        ({"sample.lanes": 12}, "sample.lanes=12 does not divide over data x fsdp = 8"),
        ({"mesh.fsdp": -1}, "at most one may be -1"),
        ({"data.shots": 9}, "data.shots=9, and there are 2 exemplars"),
        ({"finetune.row_length": 60}, "finetune.row_length=60. Set --config.finetune.row_length to at least"),
        ({"model.checkpoint": "/nowhere"}, "/nowhere is not a checkpoint folder: it has no config.json"),
        ({"sample.stops": "(' answer',)"}, "stop string ' answer' occurs in the answer of the exemplar"),
    ],
)
def test_settings(config, message, capsys, tmp_path):
    """Catches: a setting that cannot work, found late or explained badly."""
    config = {"mesh.data": -1, "sample.lanes": 8, "finetune.batch": 8, **config}
    said = run_main(capsys, "run", f"--config={ROOT}/configs/tiny.py", f"--workdir={tmp_path}/run", **config)
    assert message in said
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("duplicate", "duplicate.jsonl row 3: the id '1' is that of row 1 too"),
        ("no_question", "no_question.jsonl row 2: no text in the field `question`; it has id, prompt"),
        ("broken", "broken.jsonl line 17: not valid JSON"),
        ("empty", "empty.jsonl holds no questions"),
        ("binary", "binary.jsonl line 1: byte 0 of the line (0x89) is not UTF-8 text"),
        ("missing", "missing.jsonl does not exist"),
        ("long", "A prompt does not fit the model"),
    ],
)
def test_question_files(name, message, capsys, tmp_path):
    """Catches: a bad file that stops a run half-way, or whose bad row is dropped without a word."""
    if name in FILES:
        (tmp_path / f"{name}.jsonl").write_text(FILES[name])
    if name == "binary":
        (tmp_path / "binary.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    source = {"data.task": "jsonl", "data.questions": tmp_path / f"{name}.jsonl", "data.num_questions": 0}
    config = {"sample.lanes": 8, "finetune.batch": 8, "data.num_eval": 0, **source}
    said = run_main(capsys, "run", f"--config={ROOT}/configs/tiny.py", f"--workdir={tmp_path}/run", **config)
    assert message in said
    assert not (tmp_path / "run").exists(), "nothing is written"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.task": "jsonl"}, "needs a question file"),
        ({"data.num_eval": 0}, "data.num_questions=6 and data.num_eval=0 must both be at least 1"),
    ],
)
def test_no_questions(changes, message, capsys, tmp_path):
    """Catches: a task without questions that is found when the first is sampled."""
    config = {"sample.lanes": 8, "finetune.batch": 8, **changes}
    assert message in run_main(capsys, "run", f"--config={ROOT}/configs/tiny.py", f"--workdir={tmp_path}/run", **config)


def test_commands_of_one_process_refuse_several(capsys, tmp_path, monkeypatch):
    """Catches: hosts that all train the same thing, and write over each other."""
    monkeypatch.setenv("LMSI_DISTRIBUTED", "1")
    arguments = ("finetune", f"--config={ROOT}/configs/tiny.py", "--examples=x.jsonl", f"--output={tmp_path}/out")
    assert "lmsi finetune is one process" in run_main(capsys, *arguments)


@pytest.mark.parametrize("name", ["jsonl", "hf"])
def test_a_file_of_few_questions_needs_no_other_setting(name, capsys, tmp_path):
    """Catches: a config for anybody's questions that works only with as many as its author had."""
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "2 + 3?"}\n')
    config = {"data.questions": tmp_path / "q.jsonl", "mesh.data": -1, "mesh.fsdp": 1, "finetune.batch": 32}
    config |= {"finetune.accumulate": 1, "mesh.cpu_devices": 0}
    with pytest.raises(SystemExit) as stop:
        main(["lmsi", "doctor", f"--config={ROOT}/configs/{name}.py", *(f"--config.{k}={v}" for k, v in config.items())])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "prompts: 1 questions" in said, said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("fly",), "There is no command 'fly'; the nearest is 'rl'. Choose from: run, sample, ask, convert, prompt, extract"),
        (("run", "--wrokdir=x"), "wrokdir"),
        (("run", "--config=configs/tiny.py"), "lmsi run needs --workdir"),
        (("run", "workdir"), "'workdir' is not a flag"),
        (("vote", "--input=p.jsonl"), "lmsi vote needs --output"),
        (("vote", "--input=nowhere.jsonl", "--output=v.jsonl"), "nowhere.jsonl does not exist"),
        (("report", "--workdir=/nowhere"), "/nowhere holds no config.json"),
    ],
)
def test_command_lines(args, message, capsys):
    """Catches: a stack trace for a slip of the finger."""
    with pytest.raises(SystemExit) as stop:
        main(["lmsi", *args])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_stage_names_the_nearest(capsys, tmp_path):
    """Catches: --only=votes that runs nothing and says that all is done."""
    config = {"sample.lanes": 8, "finetune.batch": 8}
    tiny = f"--config={ROOT}/configs/tiny.py"
    said = run_main(capsys, "run", tiny, f"--workdir={tmp_path}/run", "--only=votes", **config)
    assert "There is no stage 'votes'; the nearest is 'vote'" in said


def test_work_directory_of_another_config(finished, compile_cache):
    """Catches: two experiments mixed in one directory."""
    before = (finished[0] / "config.json").read_bytes()
    done = subprocess.run(
        run_workdir(finished[0], **{"sample.paths": 5}),
        capture_output=True,
        text=True,
        env=environment(compile_cache),
        check=False,
    )
    assert done.returncode == 2
    assert "1 setting(s) differ (sample.paths: 4 there, 5 here)" in done.stderr
    assert (finished[0] / "config.json").read_bytes() == before


def test_checkpoint_of_another_architecture(capsys, tmp_path):
    """Catches: parameters read into the wrong shapes."""
    import shutil

    checkpoint = shutil.copytree(BUILTIN, tmp_path / "model")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "mlp": 384}))
    sizes = {"model.checkpoint": checkpoint, "sample.lanes": 8, "finetune.batch": 8}
    said = run_main(capsys, "run", f"--config={ROOT}/configs/tiny.py", f"--workdir={tmp_path}/run", **sizes)
    assert "params/ and config.json are of different architectures, 12 of" in said
    assert "mlp_0/down: stored (512, 128), config (384, 128)" in said
    assert not (tmp_path / "run").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB; remounted read-only by the test that wants it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a file system takes root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_full_disk(small_disk, compile_cache):
    """Catches: a stack trace, or half a file taken for a whole one, when the disk is full."""
    done = subprocess.run(
        run_workdir(small_disk / "run", **{"data.num_questions": 400}),
        capture_output=True, text=True, env=environment(compile_cache), check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
    assert "start the same command again" in done.stderr


def test_read_only_directory(small_disk, compile_cache):
    """Catches: minutes of work before the first write fails."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = subprocess.run(
        run_workdir(small_disk / "run"), capture_output=True, text=True, env=environment(compile_cache), check=False
    )
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr and "Traceback" not in done.stderr


INTERRUPTED_IN_A_CALLBACK = """
import gc, signal, sys, time
from lmsi_jax.cli import main

def run(argv):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(int(argv[0]))
    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(30)
    return 0

main._dispatch = run
main.main(sys.argv[1:])
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_callback_is_not_lost(number, status):
    """Catches: Ctrl-C that comes during a garbage collection, is printed as an ignored exception, and stops nothing."""
    command = [sys.executable, "-c", INTERRUPTED_IN_A_CALLBACK, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert done.stderr.strip() == "Interrupted. Start the same command again to resume."
