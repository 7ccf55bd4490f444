"""Each stage alone, on files that any program may have written."""

from collections.abc import Callable

from absl import flags
from etils import epath
from rich.console import Console

import lmsi_jax
from lmsi_jax.core.build import to_dict
from lmsi_jax.core.config import FORMATS, Config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import fingerprint, path_fingerprint, write_jsonl
from lmsi_jax.formatting.mixed import Prompts
from lmsi_jax.tasks.registry import Task, held_out_questions, load_task, task_type

WIDE = 220  # columns of a table of several tasks


def _with_scratch(config: Config, inputs: list[epath.Path], output: epath.Path, run: Callable[[epath.Path], None]) -> None:
    """Partial results stand beside the output, under a name that belongs to these inputs, until it is written."""
    from lmsi_jax.checkpoint.folder import locate
    from lmsi_jax.pipeline.workdir import flat

    inputs = [*inputs, locate(config.model.checkpoint)]
    made_from = fingerprint(flat(to_dict(config)), [path_fingerprint(path) for path in inputs], lmsi_jax.__version__)
    scratch = output.parent / f".{output.name}-{made_from}"
    run(scratch)
    if scratch.exists():
        scratch.rmtree()
    console.print(f"wrote {output}")


def sample(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline import steps
    from lmsi_jax.pipeline.session import Session

    session, questions, output = Session(config), epath.Path(values.questions), epath.Path(values.output)
    _with_scratch(
        config,
        [questions],
        output,
        lambda scratch: steps.sample(
            session, 1, config.model.checkpoint, questions, output, scratch, output.parent / "metrics"
        ),
    )


def vote(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.vote import vote_file

    questions = epath.Path(values.questions) if values.questions else None
    vote_file(epath.Path(values.input), epath.Path(values.output), task_type(config.data), config.select, questions)


def extract(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.vote import extract_file

    extract_file(epath.Path(values.input), epath.Path(values.output), task_type(config.data), bool(values.flexible))


def prompt(config: Config, values: flags.FlagValues) -> None:
    task = load_task(config.data)
    prompts = _prompts(config, task)
    format = values.format or FORMATS[0]
    if format not in FORMATS:
        raise UserError(f"There is no format '{format}'; there are {', '.join(FORMATS)}.")
    print(prompts.render(format, "..."))


def convert(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.foreign import convert_file

    convert_file(epath.Path(values.input), epath.Path(values.output))


def format(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.vote import format_file

    files = [epath.Path(name) for name in (values.questions, values.paths, values.votes, values.output)]
    task = load_task(config.data)
    format_file(config, task, _prompts(config, task), *files)


def _prompts(config: Config, task: Task) -> Prompts:
    """The plain prompts need no model, and no JAX."""
    if not config.data.chat:
        return Prompts.of(task)
    from lmsi_jax.pipeline.session import Session

    return Session(config).prompts


def finetune(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.checkpoint.folder import check_target
    from lmsi_jax.pipeline import steps
    from lmsi_jax.pipeline.session import Session

    session, examples, output = Session(config), epath.Path(values.examples), epath.Path(values.output)
    check_target(output)
    _with_scratch(
        config,
        [examples],
        output,
        lambda scratch: steps.finetune(
            session, 1, config.model.checkpoint, examples, output, scratch, output.parent / "metrics"
        ),
    )


def evaluate(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.evaluation.compare import PROMPTINGS
    from lmsi_jax.pipeline.evaluate import evaluate as run
    from lmsi_jax.pipeline.session import Session

    session, output = Session(config), epath.Path(values.output)
    questions = epath.Path(values.questions or output / "questions.jsonl")
    if not values.questions:  # those of the task
        rows = held_out_questions(config.data, config.seed)
        if not rows:
            raise UserError("There are no questions to score: name a file with --questions or --config.data.eval_questions.")
        write_jsonl(questions, rows)
    wanted = [prompting for prompting in PROMPTINGS if prompting != "self_consistency" or config.evaluate.self_consistency]
    scores, name = {prompting: output / f"{prompting}.jsonl" for prompting in wanted}, config.model.checkpoint
    _with_scratch(
        config,
        [questions],
        output,
        lambda scratch: run(session, 0, config.model.checkpoint, questions, scores, scratch, output / "metrics", name),
    )


def compare(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.analysis.tables import tables
    from lmsi_jax.evaluation import compare as evaluation

    sides = [evaluation.scores_below(epath.Path(folder)) for folder in (values.before, values.after)]
    found = evaluation.compare(*sides)
    wide = Console(width=WIDE)  # a table that is cut says nothing
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
        convert.export_folder(source, target, mesh, values.dtype or "", int(values["shard-mb"].value or 0) * 10**6)
    console.print(f"wrote {target}")
    if values.verify:
        worst = convert.largest_difference(source, target, mesh, adapters=values.adapter)
        console.print(f"largest difference of a logit, read back: {worst:.3g}")
