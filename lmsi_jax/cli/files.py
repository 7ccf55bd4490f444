"""The commands that run one stage on files, which any program may have written."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from absl import flags
from etils import epath

from lmsi_jax.core.errors import UserError, unknown
from lmsi_jax.core.files import path_fingerprint, remove
from lmsi_jax.core.progress import console, print_wide
from lmsi_jax.core.records import STANDARD, fingerprint, read_jsonl, write_jsonl
from lmsi_jax.core.settings import part, require_one_of, traced
from lmsi_jax.core.version import code_version
from lmsi_jax.formatting.config import FORMATS
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.recipes.config import Config, RewardRunConfig
from lmsi_jax.recipes.shared_config import require_formats, require_given_exemplars, require_likelihood
from lmsi_jax.tasks.near_copies import DEFAULT_SIMILARITY, KINDS, Kind
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.tasks.task import answer_reader, load_task
from lmsi_jax.voting.config import VoteConfig

if TYPE_CHECKING:
    from lmsi_jax.recipes.parts import Parts


def check_new(files: Sequence[epath.Path], values: flags.FlagValues) -> None:
    """Raise UserError when an output file exists, unless --overwrite is set."""
    for file in files:
        if str(file) != STANDARD and file.exists() and not values.overwrite:
            raise UserError(
                f"{file} exists; nothing was overwritten. Choose another --output, or add --overwrite to replace it."
            )


def _output(values: flags.FlagValues) -> epath.Path:
    """Return the file of --output, after a check that it may be written."""
    path = epath.Path(values.output)
    check_new([path], values)
    return path


def _run_stage(
    run: Callable[..., None],
    settings: "Callable[[Parts], Any]",
    config: Config,
    values: flags.FlagValues,
    inputs: Files,
    outputs: Files,
    metrics: epath.Path,
) -> None:
    """Run one stage outside a recipe, with the config's model as an input.

    Partial results are kept beside the output, in a folder whose name depends on the inputs and the settings. If that folder
    exists, the command was interrupted: it resumes, and existing outputs are its own.
    """
    import jax

    from lmsi_jax.checkpoint.config import resolve_numerics
    from lmsi_jax.checkpoint.folder import locate
    from lmsi_jax.pipeline.run_folder import RunFolder
    from lmsi_jax.pipeline.runtime import Runtime
    from lmsi_jax.recipes.parts import Parts

    output = epath.Path(values.output)
    fingerprints = [path_fingerprint(path) for path in (*inputs.values(), locate(config.model.checkpoint))]
    scratch = output.parent / f".{output.name}-{fingerprint(traced(config), fingerprints, code_version())}"
    if "overwrite" in values and not scratch.exists():
        check_new(list(outputs.values()), values)
    config = resolve_numerics(config, jax.default_backend())
    parts = Parts(config, RunFolder(metrics), config.model)
    scratch.mkdir(parents=True, exist_ok=True)
    stage = run.__name__.removeprefix("run_")
    run(Runtime(config.mesh, metrics).within(stage), settings(parts), {**inputs, "model": parts.checkpoint}, outputs, scratch)
    remove(scratch)
    console.print(f"wrote {output}")


def sample(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.sample import run_sample

    require_given_exemplars(config)
    inputs, output = {"questions": epath.Path(values.questions)}, epath.Path(values.output)
    metrics = output.parent / f"{output.stem}-metrics"
    _run_stage(run_sample, lambda parts: parts.sample_settings(), config, values, inputs, {"paths": output}, metrics)


def score(config: RewardRunConfig, values: flags.FlagValues, argv: list[str]) -> None:
    import jax

    from lmsi_jax.checkpoint.config import Numerics, resolve_numerics
    from lmsi_jax.pipeline.runtime import Runtime
    from lmsi_jax.stages.prompts import load_prompts
    from lmsi_jax.stages.reward import TextScorer, score_file

    output, config = _output(values), resolve_numerics(config, jax.default_backend())
    runtime = Runtime(config.mesh, output.parent / f"{output.stem}-metrics")
    prompts = load_prompts(config.data, config.model.checkpoint)
    scorer = TextScorer(runtime, config.model.checkpoint, part(config.model, Numerics), prompts)
    score_file(epath.Path(values.input), epath.Path(values.questions), output, scorer)


def vote(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.vote import VoteSettings, run_vote

    select = part(config.select, VoteConfig)
    names_task = values.task or values.config or any(word.startswith("--config.data.task=") for word in argv)
    contract = question_source(config.data).contract if names_task else config.data.contract  # not that of the default task
    checks = select.resolved_checks(contract) if values.steps else ()
    settings = VoteSettings(answer_reader(config.data), select, checks=checks)
    inputs = {"paths": epath.Path(values.input)}
    inputs |= {name: epath.Path(values[name].value) for name in ("questions", "steps") if values[name].value}
    run_vote(None, settings, inputs, {"votes": _output(values)})


def steps(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.steps import StepsSettings, run_steps

    inputs = {"paths": epath.Path(values.input), "questions": epath.Path(values.questions)}
    run_steps(None, StepsSettings(answer_reader(config.data)), inputs, {"steps": _output(values)})


def extract(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.vote import extract_file

    extract_file(epath.Path(values.input), _output(values), answer_reader(config.data), bool(values.flexible))


def prompt(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    format = values.format or next(iter(FORMATS))
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    print(_prompts(config).render(format, "..."))


def convert(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.external_samples import convert_file

    convert_file(epath.Path(values.input), _output(values))


def dedup(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.dedup import dedup_file

    kind = values.kind or "text"
    require_one_of("--kind", kind, KINDS)
    threshold = values.threshold if values.threshold is not None else DEFAULT_SIMILARITY[kind]
    if not 0 < threshold <= 1:
        raise UserError(f"--threshold={threshold} is not a share above 0 and at most 1.")
    copies = epath.Path(values.copies) if values.copies else None
    check_new([copies] if copies else [], values)
    against = epath.Path(values.against) if values.against else None
    dedup_file(epath.Path(values.input), _output(values), cast(Kind, kind), values.field or kind, threshold, against, copies)


def format(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.format import FormatSettings, run_format

    require_given_exemplars(config)
    require_formats(config)
    settings = FormatSettings(config.seed, answer_reader(config.data), _prompts(config), config.select, config.format)
    inputs = {name: epath.Path(values[name].value) for name in ("questions", "paths", "votes")}
    inputs |= {"reviews": epath.Path(config.select.reviews)} if config.select.reviews else {}
    run_format(None, settings, inputs, {"examples": _output(values)})


def _prompts(config: Config) -> Prompts:
    """Return the prompts of a task. Without a chat template this requires no model and no JAX."""
    if not config.data.chat:
        return Prompts.of(load_task(config.data))
    from lmsi_jax.stages.prompts import load_prompts

    return load_prompts(config.data, config.model.checkpoint)


def finetune(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.checkpoint.folder import check_absent
    from lmsi_jax.stages.finetune import run_finetune

    require_likelihood(config, "lmsi finetune trains on rows, not on pairs")
    inputs, output = {"examples": epath.Path(values.examples)}, epath.Path(values.output)
    check_absent(output, "--output")
    metrics = output.parent / f"{output.name}-metrics"
    _run_stage(run_finetune, lambda parts: parts.finetune_settings(), config, values, inputs, {"trained": output}, metrics)


def evaluate(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.stages.evaluate import promptings, run_evaluate

    require_given_exemplars(config)
    output, checkpoint = epath.Path(values.output), config.model.checkpoint
    questions = epath.Path(values.questions or output / "questions.jsonl")
    if not values.questions:  # those of the task
        rows = question_source(config.data).held_out(config.seed)
        if not rows:
            raise UserError("There are no questions to score: name a file with --questions or --config.data.eval_questions.")
        if not questions.exists() or list(read_jsonl(questions)) != rows:
            check_new([questions], values)
            write_jsonl(questions, rows)
    scores = {
        prompting: output / f"{prompting}.jsonl"
        for prompting in promptings(config.evaluate, answer_reader(config.data).answer_type)
    }

    def settings(parts: "Parts") -> Any:
        return parts.evaluate_settings(checkpoint, 0, checkpoint)

    _run_stage(run_evaluate, settings, config, values, {"held_out": questions}, scores, output / "metrics")


def compare(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.analysis.tables import tables
    from lmsi_jax.evaluation import compare as evaluation

    if values.output:
        check_new([epath.Path(values.output)], values)
    sides = [evaluation.scores_below(epath.Path(folder)) for folder in (values.before, values.after)]
    comparisons = evaluation.compare(*sides)
    for table in tables(comparisons):
        print_wide(table)
    if values.output:
        write_jsonl(values.output, (row.as_record() for row in comparisons))
        console.print(f"wrote {values.output}")


def report(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.analysis.report import write_report

    console.print(f"wrote {write_report(epath.Path(values.workdir))}")
