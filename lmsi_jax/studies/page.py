"""Writes study.html: the table and the plots of a study, on one page that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from etils import epath

import lmsi_jax.analysis
from lmsi_jax.core.files import write_text
from lmsi_jax.studies.results import Result, cells, published, title
from lmsi_jax.studies.study import Study

TEMPLATES = Path(lmsi_jax.analysis.__file__).parent


def write_page(study: Study, results: Sequence[Result], failed: Mapping[str, str], root: epath.Path) -> None:
    """Write `root`/study.html. `failed` has the reason of each run that failed, by its name."""
    from lmsi_jax.analysis import plots  # imports matplotlib, which is slow

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    drawn = {name: [(r.arm, r.accuracy, r.base) for r in results if r.prompting == name] for name in study.shown}
    figures = [(title(name), plots.accuracy_by_arm(rows)) for name, rows in drawn.items() if rows]
    context = {
        "study": study,
        "rows": [cells(row) + ([published(study, row)] if study.published else []) for row in results],
        "figures": figures,
        "failed": dict(failed),
        "unfinished": len(study.arms) * len(study.seeds) - _finished(results),
        "arms": [(arm.name, ", ".join(f"{key}={value!r}" for key, value in arm.settings.items())) for arm in study.arms],
    }
    write_text(root / "study.html", environment.get_template("study.html.jinja").render(context))


def _finished(results: Sequence[Result]) -> int:
    by_arm: dict[str, int] = {}
    for row in results:
        by_arm[row.arm] = max(by_arm.get(row.arm, 0), len(row.seeds))
    return sum(by_arm.values())
