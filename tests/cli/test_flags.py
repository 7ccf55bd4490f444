"""Flags and output: each command takes its own flags, prints nothing among records and replaces no file unless asked."""

import json
import subprocess

import pytest

import lmsi_jax
from lmsi_jax.cli.commands import COMMANDS, FLAGS
from lmsi_jax.cli.main import main
from tests.runs import ROOT, command, environment

PATHS = [{"id": "q", "path": i, "text": f"The answer is {answer}.", "finish": "stop"} for i, answer in enumerate("334")]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def lmsi(capsys, *args):
    """(exit status, standard output, standard error) of `lmsi ARGS`."""
    with pytest.raises(SystemExit) as stop:
        main(["lmsi", *map(str, args)])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


@pytest.mark.parametrize("name", COMMANDS)
def test_another_commands_flag_is_an_error_that_names_it(name, capsys):
    """Catches: a flag that is ignored, such as --dry-run of a command that then does it all."""
    for flag in FLAGS.keys() - set(COMMANDS[name].flags):
        status, _, error = lmsi(capsys, *name.split(), f"--{flag}" if FLAGS[flag].kind is bool else f"--{flag}=3")
        owner = next(other for other in COMMANDS.values() if flag in other.flags)
        assert status == 2 and f"--{flag} is a flag of lmsi " in error and owner.name in error and name in error, error


def test_sampling_dry_is_refused(capsys, tmp_path):
    """Catches: `lmsi sample --dry-run` that samples."""
    args = (f"--config={ROOT}/configs/tiny.py", "--questions=q.jsonl", f"--output={tmp_path}/p.jsonl", "--dry-run")
    status, _, error = lmsi(capsys, "sample", *args)
    recipes = "run, distill, faithfulness, monitor, reward, rl, rlhf, sweep, scaling run, pretrain"
    assert status == 2 and f"--dry-run is a flag of lmsi {recipes} and not of lmsi sample" in error
    assert not list(tmp_path.iterdir())


def test_settings_of_a_command_without_any_are_refused(capsys):
    """Catches: --config.seed=1 of a command that reads no seed, which changes nothing."""
    status, _, error = lmsi(capsys, "report", "--workdir=x", "--config.seed=1")
    assert status == 2 and "lmsi report has no settings" in error


@pytest.mark.parametrize("args", [("--help",), ("-h",), ("help",), ()])
def test_usage_lists_every_command(args, capsys):
    """Catches: `lmsi --help` that is an error; a command that nobody can find."""
    status, out, _ = lmsi(capsys, *args)
    assert status == 0 and all(f"  {name} " in out and COMMANDS[name].help in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_lists_its_flags(name, capsys):
    """Catches: `lmsi run --help` that is an error, or that lists the flags of all commands."""
    words = name.split()
    for args in ((*words, "--help"), (*words, "-h"), ("help", *words)):
        status, out, _ = lmsi(capsys, *args)
        assert status == 0 and {flag for flag in FLAGS if f"--{flag}=" in out or f"--{flag} " in out} == set(
            COMMANDS[name].flags
        )


def test_version(capsys):
    """Catches: `lmsi --version` that is an error."""
    assert lmsi(capsys, "--version")[:2] == (0, f"{lmsi_jax.__version__}\n")


@pytest.mark.parametrize("name", ["vote", "extract", "convert", "format"])
def test_standard_output_holds_records_alone(name, tmp_path):
    """Catches: prose between the JSON Lines, at which the next program of a pipe fails."""
    (tmp_path / "p.jsonl").write_text(lines(PATHS))
    (tmp_path / "q.jsonl").write_text('{"id": "q", "question": "1 + 2?"}\n')
    (tmp_path / "openai.jsonl").write_text(
        lines([{"custom_id": "q", "response": {"status_code": 200, "body": {"choices": [{"text": "The answer is 3."}]}}}])
    )
    subprocess.run(command("vote", f"--input={tmp_path}/p.jsonl", f"--output={tmp_path}/v.jsonl"), check=True)
    files = {
        "format": [f"--questions={tmp_path}/q.jsonl", f"--paths={tmp_path}/p.jsonl", f"--votes={tmp_path}/v.jsonl"],
        "convert": [f"--input={tmp_path}/openai.jsonl"],
    }.get(name, [f"--input={tmp_path}/p.jsonl"])
    settings = {"format": ["--answer_type=number"]}.get(name, [])
    done = subprocess.run(command(name, *files, *settings, "--output=-"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows and all("id" in row for row in rows)
    assert f"{name}: " in done.stderr


@pytest.mark.slow
def test_samples_on_standard_output_are_records_alone(tmp_path, compile_cache):
    """Catches: the lines about memory and speed of `lmsi sample --output=-` among the paths."""
    from tests.runs import SMALL

    (tmp_path / "q.jsonl").write_text('{"id": "q", "question": "Tom has 2 coins and Ann has 3. How many in all?"}\n')
    arguments = command("sample", f"--config={ROOT}/configs/tiny.py", f"--questions={tmp_path}/q.jsonl", "--output=-", **SMALL)
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**environment(compile_cache), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [0, 1, 2, 3]
    assert "wrote -" in done.stderr


def test_a_folder_cannot_go_to_standard_output(capsys):
    """Catches: a folder called "-"."""
    args = (f"--config={ROOT}/configs/tiny.py", "--examples=e.jsonl", "--output=-")
    assert "lmsi finetune writes a folder" in lmsi(capsys, "finetune", *args)[2]


def test_no_output_is_replaced_unless_asked(capsys, tmp_path):
    """Catches: `--output=paths.jsonl` beside `--input=paths.jsonl`, which destroys paid samples."""
    file = tmp_path / "p.jsonl"
    file.write_text(lines(PATHS))
    before = file.read_bytes()
    status, _, error = lmsi(capsys, "vote", f"--input={file}", f"--output={file}")
    assert status == 2 and f"{file} exists; nothing was overwritten" in error and file.read_bytes() == before
    (tmp_path / "v.jsonl").write_text("old")
    assert lmsi(capsys, "vote", f"--input={file}", f"--output={tmp_path}/v.jsonl", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "v.jsonl").read_text())["answer"] == "3"


def test_a_fine_tuned_model_goes_to_a_folder_of_its_own(capsys, tmp_path, checkpoint):
    """Catches: --output that names an earlier checkpoint, the base itself or somebody's folder, and removes it."""
    (tmp_path / "e.jsonl").write_text(lines([{"prompt": "Q: 1?\nA:", "target": " The answer is 1."}]))
    (tmp_path / "mine" / "params").mkdir(parents=True)
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    for output in (checkpoint, tmp_path / "mine"):
        args = (f"--config={ROOT}/configs/tiny.py", f"--examples={tmp_path}/e.jsonl", f"--output={output}")
        settings = (f"--config.model.checkpoint={checkpoint}", "--config.mesh.cpu_devices=0", "--config.finetune.batch=8")
        status, _, error = lmsi(capsys, "finetune", *args, *settings)
        assert status == 2 and f"{output} exists; nothing was overwritten" in error, error
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear" and (checkpoint / "params").exists()


@pytest.mark.parametrize("text", ["[/INST]", "[v2]", "[bold]x", ":smile:", "/data/[/old]/x"])
def test_text_that_looks_like_markup_is_printed_as_it_is(text, capsys, tmp_path):
    """Catches: a traceback, or words that vanish, where a path or a stop string has brackets."""
    folder = tmp_path / text.strip("/")
    folder.mkdir(parents=True)
    (folder / "p.jsonl").write_text(lines(PATHS))
    status, out, error = lmsi(capsys, "compare", f"--before={folder}", f"--after={folder}")
    assert status == 2 and str(folder) in error, error
    from lmsi_jax.core.progress import console

    console.print(f"wrote {folder}")
    assert str(folder) in capsys.readouterr().out


def test_a_terminal_that_lacks_a_character_is_no_reason_to_stop(tmp_path):
    """Catches: UnicodeEncodeError for a text of another script, or half a character, on an ASCII terminal."""
    (tmp_path / "p.jsonl").write_text('{"id": "\u6f22\\ud83d\\u001b[2J", "path": 0, "text": 3}\n', encoding="utf-8")
    arguments = command("vote", f"--input={tmp_path}/p.jsonl", f"--output={tmp_path}/v.jsonl")
    done = subprocess.run(
        arguments, capture_output=True, env={**environment(tmp_path), "PYTHONIOENCODING": "ascii"}, check=False
    )
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"\x1b" not in done.stderr
