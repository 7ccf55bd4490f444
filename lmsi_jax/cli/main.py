"""`lmsi COMMAND --config=FILE.py --config.section.key=value ...`

run         all rounds (resumes; --only, --from, --dry-run, --profile)  --config --workdir
sample      decode paths                                      --config --questions --output
convert     samples of vLLM (OpenAI batch) or lm-eval to paths  --input --output
prompt      print the prompt of a task                        --task (--format)
extract     the answer of each path, or why there is none     --input --output (--task or --answer_type, --flexible)
vote        extract answers and vote                          --input --output (--task or --answer_type, --questions)
format      training rows in four formats                     --questions --paths --votes --output
finetune    train on examples                                 --config --examples --output
evaluate    score a checkpoint on questions with answers      --config --output (--questions; else those of the task)
compare     two folders of scores: gains, intervals, tests    --before --after (--output)
report      rebuild report.html                               --workdir
plan        memory, time and cost on devices that are not here  --config --topology
doctor      check that model, mesh, prompts and data fit      --config
import      a Hugging Face folder to a checkpoint             --from --to
export      a checkpoint to a Hugging Face folder             --from --to (--dtype --adapter --verify)
pretrain    train a base model from nothing                   --config --workdir

"-" as --input or --output is standard input or output.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.config import Config, PretrainConfig
from lmsi_jax.core.errors import Terminated, UserError

NEEDED = {
    "run": ("config", "workdir"),
    "sample": ("config", "questions", "output"),
    "convert": ("input", "output"),
    "prompt": ("task",),
    "extract": ("input", "output"),
    "vote": ("input", "output"),
    "format": ("questions", "paths", "votes", "output"),
    "finetune": ("config", "examples", "output"),
    "evaluate": ("config", "output"),
    "compare": ("before", "after"),
    "report": ("workdir",),
    "plan": ("config", "topology"),
    "doctor": ("config",),
    "import": ("from", "to"),
    "export": ("from", "to"),
    "pretrain": ("config", "workdir"),
}
COMMANDS = tuple(NEEDED)


def define_flags() -> flags.FlagValues:
    """All flags of all commands but those under --config."""
    values = flags.FlagValues()
    for name, what in {
        "config": "a Python file with get_config()",
        "workdir": "directory of a run",
        "questions": "questions.jsonl",
        "paths": "paths.jsonl",
        "input": "convert: samples of another engine; extract, vote: paths.jsonl",
        "task": "prompt, extract, vote: short for --config.data.task",
        "answer_type": "extract, vote: short for --config.data.answer_type, on the task jsonl",
        "format": "prompt: one of the four formats; else few_shot_cot",
        "votes": "votes.jsonl",
        "examples": "examples.jsonl",
        "output": "file or folder to write",
        "before": "compare: folder of scores, of the checkpoint to compare with",
        "after": "compare: folder of scores",
        "only": "run: one stage, by name or kind",
        "from": "run: redo this stage and all after it; import, export: what to read",
        "topology": "plan: one or more of v5e:4x4, v5p:4x4x4, h100:8, cpu:8, with commas between them",
        "to": "import, export: folder to write",
        "dtype": "export: float32, bfloat16 or float16; else as the checkpoint has it",
    }.items():
        flags.DEFINE_string(name, None, what, flag_values=values)
    flags.DEFINE_string(
        "profile",
        None,
        "run, sample, finetune, pretrain: FIRST:LAST, steps (sample: questions) to trace (XProf)",
        flag_values=values,
    )
    flags.DEFINE_bool("dry-run", False, "run: print what is reused, what would run and why", flag_values=values)
    flags.DEFINE_bool("adapter", False, "export: the LoRA adapters alone, as a PEFT folder", flag_values=values)
    flags.DEFINE_bool("flexible", False, "extract: a guess where no answer is named", flag_values=values)
    flags.DEFINE_bool("verify", False, "export: read it back and compare logits", flag_values=values)
    flags.DEFINE_integer("shard-mb", 5000, "export: size of a safetensors file, in MB", flag_values=values)
    flags.DEFINE_bool("reconfigure", False, "run: take over a changed config in an old workdir", flag_values=values)
    return values


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, and turn what a user can put right into one paragraph and exit status 2."""
    argv = list(sys.argv if argv is None else argv)
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    try:
        status = _dispatch(argv)
    except UserError as error:
        status = _fail(str(error))
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        status = _fail(f"{name}{error.strerror or error}. What is finished is kept: mend that and start again.")
    except (KeyboardInterrupt, Terminated) as stop:
        print("\nInterrupted. Start the same command again to go on from here.", file=sys.stderr)
        status = 143 if isinstance(stop, Terminated) else 130
    sys.exit(status)


def _on_sigterm(number: int, frame: Any) -> None:
    raise Terminated


def _fail(message: str) -> int:
    print(f"lmsi: {message}", file=sys.stderr)
    return 2


def _dispatch(argv: list[str]) -> int:
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    command, rest = argv[1], argv[2:]
    if command not in COMMANDS:
        raise UserError(f"There is no command '{command}'. Commands: {', '.join(COMMANDS)}.")
    overrides = [arg for arg in rest if arg.startswith("--config.")]
    values = define_flags()
    try:
        left = values([argv[0], *(arg for arg in rest if not arg.startswith("--config."))])[1:]
    except flags.Error as error:
        raise UserError(f"{error}. `lmsi help` lists the flags of each command.") from error
    if left:
        raise UserError(f"'{left[0]}' is not a flag; write --name=value. `lmsi help` lists the flags of each command.")
    missing = [f"--{name}" for name in NEEDED[command] if not values[name].value]
    if missing:
        raise UserError(f"lmsi {command} needs {' and '.join(missing)}. `lmsi help` lists the flags of each command.")
    if values.task or values.answer_type:
        overrides.append(f"--config.data.task={values.task or 'jsonl'}")
    if values.answer_type:
        overrides.append(f"--config.data.answer_type={values.answer_type}")
    if values.profile:
        first, _, last = values.profile.partition(":")
        if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last)):
            raise UserError(f"--profile={values.profile} is not FIRST:LAST, two steps such as 10:15.")
        sections = ("train",) if command == "pretrain" else ("sample", "finetune")
        overrides += [f"--config.{section}.profile=({first},{last})" for section in sections]
    config: Any = load_config(PretrainConfig if command == "pretrain" else Config, values.config, overrides)
    if command == "plan":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what is planned for is described, not looked for
        if "cpu:" not in values.topology:
            # The CPU's compiler stands in for a GPU's. It would begin many things at once, and hold what they all need; a GPU
            # does one after another.
            flags_before = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags_before} --xla_cpu_enable_concurrency_optimized_scheduler=false".strip()
    if command not in ("convert", "prompt", "extract", "vote", "format", "compare", "report"):  # those need no JAX
        _set_devices(config.mesh.cpu_devices)
    return _run_command(command, config, values, argv)


def _set_devices(cpu_devices: int) -> None:
    """Quiet the runtime, and split the CPU before it starts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import absl.logging
    import jax

    absl.logging.set_verbosity(absl.logging.ERROR)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the next command with these shapes need not compile them again
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/lmsi_jax/compiled"))
    if cpu_devices:
        # A collective holds a thread of the CPU client's pool until its partners come; with a thread a core they may not.
        os.environ.setdefault("NPROC", str(8 * cpu_devices))
        jax.config.update("jax_num_cpu_devices", cpu_devices)


def _run_command(command: str, config: Any, values: flags.FlagValues, argv: list[str]) -> int:
    # Imported here: the vote needs no accelerator, and a wrong flag no minute of start-up.
    if command in ("sample", "finetune", "evaluate", "pretrain"):
        from lmsi_jax.sharding import processes

        if processes.expected():
            raise UserError(
                f"lmsi {command} is one process, and JAX_COORDINATOR_ADDRESS or LMSI_DISTRIBUTED says that there are several, "
                f"which would write over each other. Unset both, or use lmsi run, with --only for one stage."
            )
    if command == "pretrain":
        from lmsi_jax.pipeline.pretrain import pretrain

        pretrain(config, values.workdir, argv)
    elif command == "run":
        from lmsi_jax.core.progress import console
        from lmsi_jax.pipeline.runner import run
        from lmsi_jax.sharding import processes

        processes.join()
        console.quiet = not processes.is_first()
        run(
            config,
            values.workdir,
            argv,
            only=values.only or "",
            start_from=values["from"].value or "",
            dry_run=bool(values["dry-run"].value),
            reconfigure=values.reconfigure,
        )
    else:
        from lmsi_jax.cli import stages

        return getattr(stages, command.replace("import", "import_"))(config, values) or 0
    return 0


if __name__ == "__main__":
    main()
