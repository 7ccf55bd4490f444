"""Every command: what it does, the flags that it takes, and what it needs. Usage and help are made from this table."""

import dataclasses

from absl import flags

import lmsi_jax
from lmsi_jax.core.config import Config, PretrainConfig
from lmsi_jax.core.errors import UserError, nearest

SETTING = "--config."  # a flag that begins so changes one setting of the config


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of one or several commands. `kind` is str, bool or int."""

    help: str
    kind: type = str
    value: str = ""  # what stands for a value in usage


FLAGS: dict[str, Flag] = {
    "config": Flag("a Python file with get_config()", value="FILE.py"),
    "workdir": Flag("the directory of a run, on a disk or in a bucket (gs://...)", value="DIR"),
    "questions": Flag("a JSON Lines file of questions", value="FILE"),
    "paths": Flag("a JSON Lines file of paths", value="FILE"),
    "votes": Flag("a JSON Lines file of votes", value="FILE"),
    "examples": Flag("a JSON Lines file of training rows", value="FILE"),
    "input": Flag('the file to read; "-" is standard input', value="FILE"),
    "output": Flag('the file or folder to write; "-" is standard output, for records', value="PATH"),
    "overwrite": Flag("replace an output file that exists", bool),
    "task": Flag("a task by name, short for --config.data.task", value="NAME"),
    "answer_type": Flag("the type of the answers, short for --config.data.answer_type with the task jsonl", value="TYPE"),
    "flexible": Flag("guess an answer where none is declared", bool),
    "format": Flag("one of the four formats; few_shot_cot unless named", value="NAME"),
    "before": Flag("a folder of scores to compare with", value="DIR"),
    "after": Flag("a folder of scores", value="DIR"),
    "only": Flag("run one stage, by name or kind", value="STAGE"),
    "dry-run": Flag("print what is reused, what would run and why; write nothing", bool),
    "reconfigure": Flag("take over a work directory of another config; stages that it does not touch are kept", bool),
    "any-code": Flag("keep finished stages that another version of the code made", bool),
    "profile": Flag("steps (of sampling: questions) to trace for XProf", value="FIRST:LAST"),
    "topology": Flag("devices to plan for: v5e:4x4, v5p:4x4x4, h100:8, cpu:8; several with commas", value="NAMES"),
    "from": Flag("the checkpoint folder to read", value="DIR"),
    "to": Flag("the folder to write", value="DIR"),
    "dtype": Flag("float32, bfloat16 or float16; that of the checkpoint unless named", value="NAME"),
    "adapter": Flag("write the LoRA adapters alone, as a PEFT folder", bool),
    "verify": Flag("read the result back and compare logits", bool),
    "shard-mb": Flag("size of a safetensors file, in MB (5000)", int, value="N"),
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command by name. `settings`: does it read settings (--config.section.key=value)?"""

    name: str
    help: str
    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    settings: bool = True
    config: type = Config
    uses_jax: bool = True
    one_process: bool = False  # refused where a launcher says that there are several
    streams: bool = False  # may its --output be "-"?

    @property
    def flags(self) -> tuple[str, ...]:
        return self.needed + self.optional


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "run", "run all rounds; started again, go on", ("config", "workdir"),
            ("only", "from", "dry-run", "reconfigure", "any-code", "profile"),
        ),
        Command(
            "sample", "sample paths of questions", ("config", "questions", "output"), ("overwrite", "profile"),
            one_process=True, streams=True,
        ),
        Command(
            "convert", "samples of vLLM (OpenAI batch) or lm-eval to paths", ("input", "output"), ("overwrite",),
            settings=False, uses_jax=False, streams=True,
        ),
        Command("prompt", "print the prompt of a task", ("task",), ("format", "config"), uses_jax=False),
        Command(
            "extract", "read the answer of each path, or why there is none", ("input", "output"),
            ("task", "answer_type", "flexible", "config", "overwrite"), uses_jax=False, streams=True,
        ),
        Command(
            "vote", "read answers and vote", ("input", "output"), ("task", "answer_type", "questions", "config", "overwrite"),
            uses_jax=False, streams=True,
        ),
        Command(
            "format", "write training rows in four formats", ("questions", "paths", "votes", "output"),
            ("task", "answer_type", "config", "overwrite"), uses_jax=False, streams=True,
        ),
        Command("finetune", "train on examples", ("config", "examples", "output"), ("profile",), one_process=True),
        Command(
            "evaluate", "score a checkpoint on questions with answers, the task's own unless --questions names others",
            ("config", "output"), ("questions", "task", "overwrite"), one_process=True,
        ),
        Command(
            "compare", "compare two folders of scores: gains, intervals, tests", ("before", "after"), ("output", "overwrite"),
            settings=False, uses_jax=False, streams=True,
        ),
        Command("report", "make report.html of a run again", ("workdir",), settings=False, uses_jax=False),
        Command("plan", "memory, time and cost on devices that are not here", ("config", "topology")),
        Command("doctor", "check that model, mesh, prompts and data fit", ("config",)),
        Command("import", "a Hugging Face folder to a checkpoint", ("from", "to"), ("config",)),
        Command(
            "export", "a checkpoint to a Hugging Face folder", ("from", "to"),
            ("dtype", "adapter", "verify", "shard-mb", "config"),
        ),
        Command(
            "pretrain", "train a base model from nothing", ("config", "workdir"), ("profile",), config=PretrainConfig,
            one_process=True,
        ),
    )
}  # fmt: skip
# A flag whose meaning differs by command.
HELP = {("run", "from"): Flag("run this stage and all after it again", value="STAGE")}


def usage() -> str:
    """What `lmsi --help` prints."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return (
        f"lmsi {lmsi_jax.__version__}: language models that improve themselves on unlabelled questions\n\n"
        f"lmsi COMMAND --flag=value ... --config.section.key=value ...\n\n{rows}\n\n"
        f"`lmsi COMMAND --help` lists the flags of a command; `lmsi --version` prints the version."
    )


def command_usage(command: Command) -> str:
    """What `lmsi COMMAND --help` prints."""
    rows = []
    for name in command.flags:
        flag = HELP.get((command.name, name), FLAGS[name])
        spelled = f"--{name}" + (f"={flag.value}" if flag.value else "")
        rows.append(f"  {spelled:24} {flag.help}" + (" (needed)" if name in command.needed else ""))
    if command.settings:
        rows.append(f"  {SETTING + 'KEY=VALUE':24} change a setting, for instance --config.seed=1")
    return f"lmsi {command.name}: {command.help}\n\n" + "\n".join(rows)


def parse(command: Command, arguments: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """(values of the command's flags, its --config.key=value settings). Raises UserError on what the command does not take."""
    settings = [argument for argument in arguments if argument.startswith(SETTING)]
    if settings and not command.settings:
        name = settings[0].partition("=")[0]
        raise UserError(f"lmsi {command.name} has no settings, so {name} would change nothing; leave it out.")
    rest = [argument for argument in arguments if not argument.startswith(SETTING)]
    for argument in rest:
        _check_flag(command, argument)
    values = flags.FlagValues()
    define = {str: flags.DEFINE_string, bool: flags.DEFINE_bool, int: flags.DEFINE_integer}
    for name in command.flags:
        define[FLAGS[name].kind](name, None, FLAGS[name].help, flag_values=values)  # type: ignore[operator]
    try:
        left = values(["lmsi", *rest])[1:]
    except flags.Error as error:
        raise UserError(f"{error}. `lmsi {command.name} --help` lists the flags.") from error
    if left:
        raise UserError(f"'{left[0]}' is not a flag; write --name=value. `lmsi {command.name} --help` lists the flags.")
    missing = [f"--{name}" for name in command.needed if not values[name].value]
    if missing:
        raise UserError(f"lmsi {command.name} needs {' and '.join(missing)}. `lmsi {command.name} --help` lists the flags.")
    return values, settings


def _check_flag(command: Command, argument: str) -> None:
    """Raise UserError when a flag is one of other commands alone, or of none."""
    if not argument.startswith("-") or argument in ("-", "--"):
        return
    name = argument.lstrip("-").partition("=")[0]
    known = name if name in FLAGS or not name.startswith("no") else name.removeprefix("no")
    if known in command.flags:
        return
    others = [other.name for other in COMMANDS.values() if known in other.flags]
    if others:
        raise UserError(
            f"--{name} is a flag of lmsi {', '.join(others)} and not of lmsi {command.name}, which would ignore it. "
            f"`lmsi {command.name} --help` lists the flags."
        )
    raise UserError(
        f"There is no flag --{name}; the nearest of lmsi {command.name} is --{nearest(name, command.flags)}. "
        f"`lmsi {command.name} --help` lists the flags."
    )
