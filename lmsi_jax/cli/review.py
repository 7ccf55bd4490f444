"""The commands for human review."""

import getpass
from typing import Any

from absl import flags
from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.pipeline.run_folder import RunFolder

PORT = 8717


def review(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    try:
        from lmsi_jax.review.server import serve
    except ImportError as error:
        raise UserError(
            f"The review page needs {error.name}, which is not installed: pip install 'lmsi_jax[review]'."
        ) from error
    from lmsi_jax.analysis.reviews import run_seed
    from lmsi_jax.core.lock import locked
    from lmsi_jax.review.desk import Desk
    from lmsi_jax.review.items import group_to_review, read_items
    from lmsi_jax.review.log import Log

    folder = RunFolder.at(values.workdir)
    group, seed = group_to_review(folder, values.group or ""), run_seed(folder)
    reviewers = [name.strip() for name in (values.reviewers or getpass.getuser()).split(",") if name.strip()]
    if len(set(reviewers)) < len(reviewers) or not reviewers:
        raise UserError(f"--reviewers={values.reviewers} must name each reviewer once.")
    port = PORT if values.port is None else values.port
    items = read_items(folder, group, seed, values.above or 0.0)
    output = epath.Path(values.output).absolute() if values.output else folder.reviews(group).parent
    reviews, rankings = (Log(output / file(group).name) for file in (folder.reviews, folder.rankings))
    console.print(f"review: {len(items):,} labels of {group}; verdicts go to {reviews.file}", soft_wrap=True)
    with locked(output / ".review"):
        serve(Desk(items, reviews, rankings, reviewers, seed), reviewers, port, f"{output} {group}")


def reviews(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.analysis.reviews import audit, run_seed, show_audit
    from lmsi_jax.cli.files import check_new
    from lmsi_jax.core.files import write_text
    from lmsi_jax.core.lock import locked
    from lmsi_jax.review.exchange import export_reviews, import_reviews, tool_of
    from lmsi_jax.review.items import group_to_review, read_items
    from lmsi_jax.review.log import Log

    folder = RunFolder.at(values.workdir)
    group = group_to_review(folder, values.group or "")
    if bool(values.tool) != bool(values.input or values.output):
        raise UserError("--tool goes with --input, a file of that tool, or with --output, the file to write for it.")
    log = Log(folder.reviews(group)) if values.tool else None
    if log and values.input:
        text = epath.Path(values.input).read_text()
        with locked(log.file.parent / ".review"):
            before = {(row["key"], row["path"]) for row in log.rows()}
            new = [row for row in import_reviews(values.tool, text, values.input) if (row["key"], row["path"]) not in before]
            log.append(new)
        console.print(f"reviews: {len(new):,} new rows from {values.input}")
    if log and values.output:
        tool_of(values.tool)
        check_new([epath.Path(values.output)], values)
        items = read_items(folder, group, run_seed(folder), values.above or 0.0)
        write_text(values.output, export_reviews(values.tool, items, log.rows()))
        console.print(f"wrote {values.output}")
    found = audit(folder, group)
    if found:
        show_audit(found)
    else:
        console.print(f"{folder.reviews(group)} has no review of the labels of {group}; `lmsi review` opens the page for it.")
