"""The table of commands: what each does, its flags and its requirements. Usage and help are generated from it."""

import dataclasses
from collections.abc import Sequence

from absl import flags

import lmsi_jax
from lmsi_jax.core.errors import UserError, nearest, unknown

OF_STUDY = "that of the study"  # in place of a recipe, which the study names
LAW_NAMES = (  # of scaling/records.py, which would import SciPy for each command
    "kaplan_params", "kaplan_tokens", "kaplan_compute", "kaplan_params_tokens", "chinchilla_parametric", "overtraining",
    "data_constrained", "chinchilla_envelope", "chinchilla_isoflop", "coverage", "vote",
)  # fmt: skip
SETTING = "--config."  # the prefix of a flag that overrides one setting of the config


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of one or several commands. `kind` is str, bool, int or float."""

    help: str
    kind: type = str
    value: str = ""  # the placeholder of the value in the help


FLAGS: dict[str, Flag] = {
    "config": Flag("a Python file with get_config(), or the name of a config that `lmsi configs` lists", value="FILE"),
    "workdir": Flag("the directory of a run, on a disk or in a bucket (gs://...)", value="DIR"),
    "questions": Flag("a JSON Lines file of questions", value="FILE"),
    "paths": Flag("a JSON Lines file of paths", value="FILE"),
    "rankings": Flag("a JSON Lines file of human rankings, short for --config.reward.rankings", value="FILE"),
    "steps": Flag("a JSON Lines file of checked steps", value="FILE"),
    "votes": Flag("a JSON Lines file of votes", value="FILE"),
    "examples": Flag("a JSON Lines file of training rows", value="FILE"),
    "input": Flag('the file to read; "-" is standard input', value="FILE"),
    "output": Flag('the file or folder to write; "-" is standard output, for records', value="PATH"),
    "against": Flag("texts whose near copies, and whose runs of 13 words, are left out too", value="FILE"),
    "field": Flag("the field with the text; text or question by default, after --kind", value="NAME"),
    "kind": Flag("text (the default), or question: copies have the same numbers", value="KIND"),
    "threshold": Flag("the share of word trigrams, or of words of questions, that copies have in common", float, "SHARE"),
    "copies": Flag("a file for the texts that are left out, with what they resemble", value="FILE"),
    "model": Flag("a checkpoint folder or hf://ORG/NAME, short for --config.model.checkpoint", value="DIR"),
    "json": Flag("print a record with all paths, and nothing else", bool),
    "overwrite": Flag("replace an output file that exists", bool),
    "task": Flag("a task by name, short for --config.data.task", value="NAME"),
    "answer_type": Flag("the type of the answers, short for --config.data.answer_type with the task jsonl", value="TYPE"),
    "flexible": Flag("guess an answer where none is declared", bool),
    "format": Flag("one of the four formats; few_shot_cot by default", value="NAME"),
    "before": Flag("a folder of scores to compare with", value="DIR"),
    "after": Flag("a folder of scores", value="DIR"),
    "only": Flag("run only this stage, such as rounds/1/vote, or vote for that of each round", value="STAGE"),
    "dry-run": Flag("print what is reused, what would run and why; write nothing", bool),
    "reconfigure": Flag("adopt a work directory of another config; stages that do not depend on the changes are kept", bool),
    "store": Flag(
        "the folder of finished stages that runs share; by default beside the work directory; none = no store", value="DIR"
    ),
    "prune": Flag("remove stages that were not used for this number of days; 0 removes all", int, value="DAYS"),
    "any-code": Flag("keep finished stages of another version of the code", bool),
    "wandb": Flag("also send the metrics to this project of Weights & Biases", value="PROJECT"),
    "profile": Flag("steps to trace for XProf; when sampling, questions", value="FIRST:LAST"),
    "topology": Flag("devices to plan for: v5e:4x4, v5p:4x4x4, h100:8, cpu:8; separate several by commas", value="NAMES"),
    "from": Flag("the checkpoint folder to read, or hf://ORG/NAME@REVISION", value="DIR"),
    "to": Flag("the folder to write", value="DIR"),
    "group": Flag("the records of the run to review, such as rounds/1; by default the last ones with votes", value="NAME"),
    "reviewers": Flag("the names of the reviewers, separated by commas; each gets an address", value="NAMES"),
    "above": Flag("review only labels with a vote share above this: 0.25 or 0.5", float, value="SHARE"),
    "port": Flag("the port of the page (8717); 0 is any free one", int, value="N"),
    "tool": Flag("label_studio, argilla, prodigy or inspect", value="NAME"),
    "recipe": Flag("self_improve (the default), pretrain, distill, faithfulness, monitor, rl, rlhf or reward", value="NAME"),
    "dtype": Flag("float32, bfloat16 or float16; by default that of the checkpoint", value="NAME"),
    "adapter": Flag("write only the LoRA adapters, as a PEFT folder", bool),
    "verify": Flag("read the result back and compare logits", bool),
    "law": Flag(f"one of {', '.join(LAW_NAMES)}", value="NAME"),
    "count": Flag("which parameters are counted: total (the default) or non_embedding", value="NAME"),
    "bootstrap": Flag("resampled data sets for intervals (1000); 0 is none", int, value="N"),
    "fit": Flag("a record of lmsi scaling fit, or besiroglu_2024, hoffmann_2022, kaplan_2020, muennighoff_2023", value="FILE"),
    "budget": Flag("floating-point operations of the training run", float, value="FLOPS"),
    "hours": Flag("hours on the topology, in place of a budget", float, value="HOURS"),
    "mfu": Flag("model operations as a share of the chips' peak (0.4)", float, value="SHARE"),
    "price": Flag("dollars per chip hour", float, value="DOLLARS"),
    "watts": Flag("average power of a chip", float, value="WATTS"),
    "pue": Flag("power of the data centre over that of its chips (1.1)", float, value="RATIO"),
    "kg_per_kwh": Flag("carbon dioxide of electricity (0.475, the world's average)", float, value="KG"),
    "unique_tokens": Flag("tokens that there are; with a data_constrained fit, more are repeats", float, value="N"),
    "inference_tokens": Flag("tokens that the model will generate, in all its paths", float, value="N"),
    "push": Flag(
        "also upload the folder to the Hugging Face Hub, with a model card; private, unless --public", value="ORG/NAME"
    ),
    "public": Flag("make the uploaded model public", bool),
    "shard-mb": Flag("size of a safetensors file, in MB (5000)", int, value="N"),
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command. `settings` is whether it accepts settings (--config.section.key=value)."""

    name: str
    help: str
    run: str  # "module.function" in cli/, called with (config, flag values, command line)
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    settings: bool = True
    recipe: str = "self_improve"  # the recipe whose root config the command takes
    uses_jax: bool = True
    one_process: bool = False  # refused when a launcher has started several processes
    positional: str = ""  # the name of an argument without a flag, which may be left out
    streams: bool = False  # whether its --output may be "-"
    profiled: tuple[str, ...] = ("sample", "finetune")  # the sections whose steps --profile traces

    @property
    def flags(self) -> tuple[str, ...]:
        return self.required + self.optional


RUNNER = ("only", "from", "dry-run", "reconfigure", "any-code", "store", "profile", "wandb")
COMMANDS = {
    command.name: command
    for command in (
        Command("run", "run all rounds, or resume them", "recipes.run", ("config", "workdir"), RUNNER),
        Command(
            "sample", "sample paths for questions", "files.sample", ("config", "questions", "output"), ("overwrite", "profile"),
            one_process=True, streams=True,
        ),
        Command(
            "ask", "answer a question by the vote of many paths, live; without a question, each line that is typed",
            "ask.ask", (), ("model", "paths", "json", "task", "answer_type", "config"), one_process=True, positional="question",
        ),
        Command(
            "convert", "convert samples of vLLM (OpenAI batch) or lm-eval to paths", "files.convert", ("input", "output"),
            ("overwrite",), settings=False, uses_jax=False, streams=True,
        ),
        Command("prompt", "print the prompt of a task", "files.prompt", ("task",), ("format", "config"), uses_jax=False),
        Command(
            "extract", "read the answer of each path, or the reason why it has none", "files.extract", ("input", "output"),
            ("task", "answer_type", "flexible", "config", "overwrite"), uses_jax=False, streams=True,
        ),
        Command(
            "vote", "read answers and vote", "files.vote", ("input", "output"),
            ("task", "answer_type", "questions", "steps", "config", "overwrite"), uses_jax=False, streams=True,
        ),
        Command(
            "steps", "check the steps of each path: arithmetic, where numbers come from, the answer", "files.steps",
            ("input", "questions", "output"), ("task", "answer_type", "config", "overwrite"), uses_jax=False, streams=True,
        ),
        Command(
            "format", "write training rows in four formats", "files.format", ("questions", "paths", "votes", "output"),
            ("task", "answer_type", "config", "overwrite"), uses_jax=False, streams=True,
        ),
        Command(
            "finetune", "train on examples", "files.finetune", ("config", "examples", "output"), ("profile",),
            one_process=True, profiled=("finetune",),
        ),
        Command(
            "evaluate", "score a checkpoint on questions with answers, by default those of the task",
            "files.evaluate", ("config", "output"), ("questions", "task", "overwrite"), one_process=True,
        ),
        Command(
            "compare", "compare two folders of scores: gains, intervals, tests", "files.compare", ("before", "after"),
            ("output", "overwrite"), settings=False, uses_jax=False, streams=True,
        ),
        Command(
            "review", "open a local page on which people judge voted answers and paths", "review.review", ("workdir",),
            ("group", "reviewers", "above", "port"), settings=False, uses_jax=False,
        ),
        Command(
            "reviews", "summarise reviews, or exchange them with other annotation tools", "review.reviews", ("workdir",),
            ("group", "above", "input", "output", "tool", "overwrite"), settings=False, uses_jax=False,
        ),
        Command(
            "report", "write report.html of a run again", "files.report", ("workdir",), settings=False, uses_jax=False,
        ),
        Command("plan", "estimate memory, time and cost on other devices", "models.plan", ("config", "topology")),
        Command(
            "doctor", "check that model, mesh, prompts and data fit", "recipes.doctor", ("config",), ("recipe",),
        ),
        Command("import", "convert a Hugging Face folder to a checkpoint", "models.import_folder", ("from", "to"), ("config",)),
        Command(
            "export", "convert a checkpoint to a Hugging Face folder", "models.export_folder", ("from", "to"),
            ("dtype", "adapter", "verify", "shard-mb", "push", "public", "config"),
        ),
        Command(
            "distill", "train a student on the voted paths of a teacher", "recipes.run", ("config", "workdir"), RUNNER,
            recipe="distill",
        ),
        Command(
            "faithfulness", "test whether answers depend on the reasoning before them", "recipes.run", ("config", "workdir"),
            RUNNER, recipe="faithfulness",
        ),
        Command(
            "monitor", "train against a check of the reasoning, and audit by others", "recipes.run", ("config", "workdir"),
            RUNNER, recipe="monitor",
        ),
        Command(
            "reward", "train a reward model on human rankings", "recipes.run", ("config", "workdir"), ("rankings", *RUNNER),
            recipe="reward", profiled=("train",),
        ),
        Command(
            "score", "score paths with a reward model", "files.score", ("config", "input", "questions", "output"),
            ("overwrite",), recipe="reward", one_process=True,
        ),
        Command(
            "rl", "train on rewards of paths that the model samples itself", "recipes.run", ("config", "workdir"), RUNNER,
            recipe="rl", profiled=("train",),
        ),
        Command(
            "rlhf", "imitate the best answers of rankings, train a reward model on all, and the model on its scores",
            "recipes.run", ("config", "workdir"), ("rankings", *RUNNER), recipe="rlhf", profiled=("train",),
        ),
        Command(
            "sweep", "run a study: arms that differ in some settings, over seeds", "recipes.sweep", ("config", "workdir"),
            ("dry-run", "reconfigure", "any-code", "store"), recipe=OF_STUDY, one_process=True,
        ),
        Command(
            "dedup", "leave out near copies of texts or questions, and those of another file", "files.dedup",
            ("input", "output"), ("against", "field", "kind", "threshold", "copies", "overwrite"), settings=False,
            uses_jax=False, streams=True,
        ),
        Command(
            "scaling run", "train models of several sizes and lengths, and fit scaling laws to their losses", "recipes.run",
            ("config", "workdir"), RUNNER, recipe="scaling", one_process=True, profiled=("train",),
        ),
        Command(
            "scaling fit", "fit a scaling law to runs, with intervals", "scaling.fit", ("law", "input", "output"),
            ("count", "bootstrap", "above", "overwrite"), settings=False, uses_jax=False, streams=True,
        ),
        Command(
            "scaling plan", "plan a training run from a fit and a budget", "scaling.plan", ("fit",),
            ("budget", "hours", "topology", "mfu", "price", "watts", "pue", "kg_per_kwh", "unique_tokens", "inference_tokens"),
            settings=False, uses_jax=False,
        ),
        Command(
            "configs", "list the configs and studies that come with lmsi_jax", "recipes.configs", (), settings=False,
            uses_jax=False,
        ),
        Command(
            "store", "list the finished stages that runs share, or remove old ones", "recipes.store", ("store",), ("prune",),
            settings=False, uses_jax=False,
        ),
        Command(
            "pretrain", "train a base model from scratch", "recipes.run", ("config", "workdir"), RUNNER,
            recipe="pretrain", one_process=True, profiled=("train",),
        ),
    )
}  # fmt: skip
# Flags whose meaning depends on the command.
HELP = {
    ("ask", "paths"): Flag("paths that vote, short for --config.sample.paths", int, value="N"),
    ("scaling fit", "above"): Flag("predict the points of more operations than this from the others", float, value="FLOPS"),
    ("sweep", "config"): Flag("a Python file with get_study(), or the name of a study, such as studies/formats", value="FILE"),
    **{
        (name, "from"): Flag("run this stage and all after it again", value="STAGE")
        for name in ("run", "pretrain", "scaling run", "distill", "faithfulness", "monitor", "rl", "rlhf", "reward")
    },
}


def command_of(words: Sequence[str]) -> Command:
    """Return the command that words begin with; some names are two words. Raises UserError for an unknown one."""
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return COMMANDS[name]


def usage() -> str:
    """Return what `lmsi --help` prints."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return (
        f"lmsi {lmsi_jax.__version__}: language models that improve themselves on unlabelled questions\n\n"
        f"lmsi COMMAND --flag=value ... --config.section.key=value ...\n\n{rows}\n\n"
        f"`lmsi COMMAND --help` lists the flags of a command; `lmsi --version` prints the version."
    )


def flag_of(command: Command, name: str) -> Flag:
    """Return a flag as a command has it."""
    return HELP.get((command.name, name), FLAGS[name])


def command_usage(command: Command) -> str:
    """Return what `lmsi COMMAND --help` prints."""
    rows = [f"  {command.positional.upper():24} between quotes"] if command.positional else []
    for name in command.flags:
        flag = flag_of(command, name)
        spelled = f"--{name}" + (f"={flag.value}" if flag.value else "")
        rows.append(f"  {spelled:24} {flag.help}" + (" (required)" if name in command.required else ""))
    if command.settings:
        rows.append(f"  {SETTING + 'KEY=VALUE':24} change a setting, for instance --config.seed=1")
    return f"lmsi {command.name}: {command.help}\n\n" + "\n".join(rows)


def parse(command: Command, arguments: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """Return (flag values, --config.key=value settings). Raises UserError on unknown, invalid or missing flags."""
    settings = [argument for argument in arguments if argument.startswith(SETTING)]
    if settings and not command.settings:
        name = settings[0].partition("=")[0]
        raise UserError(f"lmsi {command.name} has no settings, so {name} would change nothing; leave it out.")
    rest = [argument for argument in arguments if not argument.startswith(SETTING)]
    for argument in rest:
        _check_flag(command, argument)
    values = flags.FlagValues()
    define = {str: flags.DEFINE_string, bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    for name in command.flags:
        flag = flag_of(command, name)
        define[flag.kind](name, None, flag.help, flag_values=values)  # type: ignore[operator]
    if command.positional:
        flags.DEFINE_string(command.positional, None, "", flag_values=values)
    try:
        left = values(["lmsi", *rest])[1:]
    except flags.Error as error:
        raise UserError(f"{error}. `lmsi {command.name} --help` lists the flags.") from error
    if command.positional and len(left) == 1:
        values[command.positional].value = left.pop()
    if left and command.positional:
        raise UserError(f"{' '.join(left)!r:.80} are {len(left)} arguments; put the {command.positional} between quotes.")
    if left:
        raise UserError(f"'{left[0]}' is not a flag; write --name=value. `lmsi {command.name} --help` lists the flags.")
    missing = [f"--{name}" for name in command.required if not values[name].value]
    if missing:
        raise UserError(f"lmsi {command.name} needs {' and '.join(missing)}. `lmsi {command.name} --help` lists the flags.")
    return values, settings


def _check_flag(command: Command, argument: str) -> None:
    """Raise UserError unless an argument is a flag of the command."""
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
