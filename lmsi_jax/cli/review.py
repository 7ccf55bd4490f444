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
    console.print(f"review: {len(items):,} labels of {group}; verdicts go to {folder.reviews(group)}", soft_wrap=True)
    with locked(folder.reviews(group).parent / ".review"):
        reviews, rankings = (Log(file(group)) for file in (folder.reviews, folder.rankings))
        serve(Desk(items, reviews, rankings, reviewers, seed), reviewers, port, str(folder.reviews(group)))


def reviews(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.analysis.reviews import audit, run_seed, show_audit
    from lmsi_jax.cli.files import check_new
    from lmsi_jax.core.files import write_text
    from lmsi_jax.core.lock import locked
    from lmsi_jax.core.records import read_growing
    from lmsi_jax.review.exchange import LABELING_CONFIG, export_reviews, import_reviews, tool_of
    from lmsi_jax.review.items import group_to_review, read_items
    from lmsi_jax.review.log import Log

    folder = RunFolder.at(values.workdir)
    group = group_to_review(folder, values.group or "")
    if bool(values.tool) != bool(values.input or values.output):
        raise UserError("--tool goes with --input, a file of that tool, or with --output, the file to write for it.")
    if values.tool:
        tool_of(values.tool)
    if values.input:
        text = epath.Path(values.input).read_text()
        with locked(folder.reviews(group).parent / ".review"):
            log = Log(folder.reviews(group))
            new = import_reviews(values.tool, text, values.input, log.rows())
            log.append(new)
        console.print(f"reviews: {len(new):,} new rows from {values.input}")
    if values.output:
        rows = read_growing(folder.reviews(group)) if folder.reviews(group).exists() else []
        items = read_items(folder, group, run_seed(folder), values.above or 0.0)
        files = {values.output: export_reviews(values.tool, items, rows)}
        if values.tool == "label_studio":
            files[f"{values.output}.config.xml"] = LABELING_CONFIG
        check_new([epath.Path(file) for file in files], values)
        for file, content in files.items():
            write_text(file, content)
            console.print(f"wrote {file}")
    found = audit(folder, group)
    if found:
        show_audit(found)
    else:
        console.print(f"{folder.reviews(group)} has no review of the labels of {group}; `lmsi review` opens the page for it.")
