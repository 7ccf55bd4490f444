"""Each stage alone, on files that any program may have written."""

from collections.abc import Callable, Sequence

from absl import flags
from etils import epath

from lmsi_jax.core.build import to_dict
from lmsi_jax.core.config import FORMATS, Config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import path_fingerprint, remove
from lmsi_jax.core.progress import SafeConsole, console
from lmsi_jax.core.records import STANDARD, fingerprint, read_jsonl, write_jsonl
from lmsi_jax.core.version import code_version
from lmsi_jax.formatting.mixed import Prompts
from lmsi_jax.tasks.registry import Task, held_out_questions, load_task, task_type

SHARD_MB = 5000  # size of a safetensors file
WIDE = 220  # columns of a table of several tasks


def _check_new(files: Sequence[epath.Path], values: flags.FlagValues) -> None:
    """Raise UserError when a file that is to be written exists, unless --overwrite says that it may be replaced."""
    for file in files:
        if str(file) != STANDARD and file.exists() and not values.overwrite:
            raise UserError(
                f"{file} exists; nothing was overwritten. Choose another --output, or add --overwrite to replace it."
            )


def _output(values: flags.FlagValues) -> epath.Path:
    """The file that --output names, which a command may write."""
    path = epath.Path(values.output)
    _check_new([path], values)
    return path


def _scratch(config: Config, inputs: list[epath.Path], output: epath.Path) -> epath.Path:
    """Where partial results stand beside the output, under a name that belongs to these inputs and settings.

    Where it is there already, an interrupted command goes on, and the outputs that it had written are its own.
    """
    from lmsi_jax.checkpoint.folder import locate
    from lmsi_jax.pipeline.workdir import flat

    fingerprints = [path_fingerprint(path) for path in (*inputs, locate(config.model.checkpoint))]
    return output.parent / f".{output.name}-{fingerprint(flat(to_dict(config)), fingerprints, code_version())}"


def _run_resumable(scratch: epath.Path, output: epath.Path, run: Callable[[], None]) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    run()
    remove(scratch)
    console.print(f"wrote {output}")


def sample(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline import steps
    from lmsi_jax.pipeline.session import Session

    questions, output = epath.Path(values.questions), epath.Path(values.output)
    scratch = _scratch(config, [questions], output)
    if not scratch.exists():
        _check_new([output], values)
    metrics, checkpoint = output.parent / f"{output.stem}-metrics", config.model.checkpoint
    _run_resumable(scratch, output, lambda: steps.sample(Session(config), 1, checkpoint, questions, output, scratch, metrics))


def vote(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.vote import vote_file

    questions = epath.Path(values.questions) if values.questions else None
    vote_file(epath.Path(values.input), _output(values), task_type(config.data), config.select, questions)


def extract(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.vote import extract_file

    extract_file(epath.Path(values.input), _output(values), task_type(config.data), bool(values.flexible))


def prompt(config: Config, values: flags.FlagValues) -> None:
    task = load_task(config.data)
    prompts = _prompts(config, task)
    format = values.format or FORMATS[0]
    if format not in FORMATS:
        raise UserError(f"There is no format '{format}'; there are {', '.join(FORMATS)}.")
    print(prompts.render(format, "..."))


def convert(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.foreign import convert_file

    convert_file(epath.Path(values.input), _output(values))


def format(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.vote import format_file

    questions, paths, votes = (epath.Path(name) for name in (values.questions, values.paths, values.votes))
    task = load_task(config.data)
    format_file(config, task, _prompts(config, task), questions, paths, votes, _output(values))


def _prompts(config: Config, task: Task) -> Prompts:
    """The plain prompts need no model, and no JAX."""
    if not config.data.chat:
        return Prompts.of(task)
    from lmsi_jax.pipeline.session import Session

    return Session(config).prompts


def finetune(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.checkpoint.folder import check_absent
    from lmsi_jax.pipeline import steps
    from lmsi_jax.pipeline.session import Session

    examples, output, checkpoint = epath.Path(values.examples), epath.Path(values.output), config.model.checkpoint
    check_absent(output, "--output")
    scratch, metrics = _scratch(config, [examples], output), output.parent / f"{output.name}-metrics"
    _run_resumable(scratch, output, lambda: steps.finetune(Session(config), 1, checkpoint, examples, output, scratch, metrics))


def evaluate(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.evaluation.compare import PROMPTINGS
    from lmsi_jax.pipeline.evaluate import evaluate as run
    from lmsi_jax.pipeline.session import Session

    output, checkpoint = epath.Path(values.output), config.model.checkpoint
    questions = epath.Path(values.questions or output / "questions.jsonl")
    if not values.questions:  # those of the task
        rows = held_out_questions(config.data, config.seed)
        if not rows:
            raise UserError("There are no questions to score: name a file with --questions or --config.data.eval_questions.")
        if not questions.exists() or list(read_jsonl(questions)) != rows:
            _check_new([questions], values)
            write_jsonl(questions, rows)
    wanted = [prompting for prompting in PROMPTINGS if prompting != "self_consistency" or config.evaluate.self_consistency]
    scores = {prompting: output / f"{prompting}.jsonl" for prompting in wanted}
    scratch = _scratch(config, [questions], output)
    if not scratch.exists():
        _check_new(list(scores.values()), values)
    _run_resumable(
        scratch,
        output,
        lambda: run(Session(config), 0, checkpoint, questions, scores, scratch, output / "metrics", checkpoint),
    )


def compare(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.analysis.tables import tables
    from lmsi_jax.evaluation import compare as evaluation

    if values.output:
        _check_new([epath.Path(values.output)], values)
    sides = [evaluation.scores_below(epath.Path(folder)) for folder in (values.before, values.after)]
    found = evaluation.compare(*sides)
    wide = SafeConsole(width=WIDE, stderr=console.stderr, markup=False, emoji=False)  # a table that is cut says nothing
    for table in tables(found):
        wide.print(table)
    if values.output:
        write_jsonl(values.output, (row.as_record() for row in found))
        console.print(f"wrote {values.output}")


def report(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.analysis.report import write_report

    console.print(f"wrote {write_report(epath.Path(values.workdir))}")


def plan(config: Config, values: flags.FlagValues) -> int:
    from lmsi_jax.pipeline.plan import plan as run

    return run(config, values.topology.split(","))


def doctor(config: Config, values: flags.FlagValues) -> int:
    from lmsi_jax.pipeline.preflight import doctor
    from lmsi_jax.pipeline.session import Session

    return 2 if doctor(Session(config)) else 0


def import_(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.checkpoint.convert import import_folder
    from lmsi_jax.sharding import make_mesh

    source, target = str(values["from"].value), values.to
    console.print(f"wrote {target}: {import_folder(source, target, make_mesh(config.mesh))}")


def export(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.checkpoint import convert
    from lmsi_jax.sharding import make_mesh

    source, target, mesh = str(values["from"].value), values.to, make_mesh(config.mesh)
    if values.adapter:
        convert.export_adapters(source, target)
    else:
        convert.export_folder(source, target, mesh, values.dtype or "", int(values["shard-mb"].value or SHARD_MB) * 10**6)
    console.print(f"wrote {target}")
    if values.verify:
        worst = convert.largest_difference(source, target, mesh, adapters=values.adapter)
        console.print(f"largest difference of a logit, read back: {worst:.3g}")
