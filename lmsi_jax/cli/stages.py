"""Each stage alone, on files that any program may have written."""

from collections.abc import Callable

from absl import flags
from etils import epath

import lmsi_jax
from lmsi_jax.core.config import Config, to_dict
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import fingerprint, path_fingerprint


def _with_scratch(config: Config, inputs: list[epath.Path], output: epath.Path, run: Callable[[epath.Path], None]) -> None:
    """Partial results stand beside the output, under a name that belongs to these inputs, until it is written."""
    from lmsi_jax.checkpoint.folder import locate

    inputs = [*inputs, locate(config.model.checkpoint)]
    made_from = fingerprint(to_dict(config), [path_fingerprint(path) for path in inputs], lmsi_jax.__version__)
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

    vote_file(epath.Path(values.paths), epath.Path(values.output), config.data.answer_type, config.select.tie)


def format(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.pipeline.vote import format_file
    from lmsi_jax.tasks.registry import load_task

    files = [epath.Path(name) for name in (values.questions, values.paths, values.votes, values.output)]
    format_file(config, load_task(config.data), *files)


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
    from lmsi_jax.pipeline.evaluate import PROMPTINGS
    from lmsi_jax.pipeline.evaluate import evaluate as run
    from lmsi_jax.pipeline.session import Session

    session, questions, output = Session(config), epath.Path(values.questions), epath.Path(values.output)
    wanted = [name for name in PROMPTINGS if name != "self_consistency" or config.evaluate.self_consistency]
    scores = {name: output / f"{name}.jsonl" for name in wanted}
    _with_scratch(
        config,
        [questions],
        output,
        lambda scratch: run(session, 0, config.model.checkpoint, questions, scores, scratch, output / "metrics"),
    )


def report(config: Config, values: flags.FlagValues) -> None:
    from lmsi_jax.analysis.report import write_report

    console.print(f"wrote {write_report(epath.Path(values.workdir))}")
