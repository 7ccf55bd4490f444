"""The results of a study: the accuracy of each arm, over its seeds, and its difference from the first arm."""

import dataclasses
from collections.abc import Sequence

from etils import epath
from rich.table import Table
from rich.text import Text

from lmsi_jax.analysis.summary import Scores, grid, p_text, read_scores
from lmsi_jax.core.records import Record
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.evaluation.statistics import Estimate, holm, mcnemar, seeds_estimate
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.studies.study import Study


@dataclasses.dataclass(frozen=True)
class Result:
    """The accuracy of one arm with one prompting: of the last model of its runs, over questions and seeds.

    `base` is the accuracy of the first model of the same runs. `difference` and `p_holm` compare with the first arm of the
    study on the same questions and seeds; they are None for that arm itself, and where no seed is finished in both.
    """

    arm: str
    prompting: str
    seeds: tuple[int, ...]
    n: int  # questions of a seed
    paths: int
    base: Estimate | None
    accuracy: Estimate
    difference: Estimate | None = None
    p_value: float | None = None
    p_holm: float | None = None


BySeed = dict[int, list[Record]]  # score rows by seed


def read_results(study: Study, root: epath.Path) -> list[Result]:
    """Return the results of all arms that have finished runs, by prompting and then in the order of the arms."""
    found: list[Result] = []
    for prompting in study.shown:
        first, last = _rows(study, root, prompting)
        of_prompting = [
            _result(arm.name, prompting, first[arm.name], last[arm.name], last[study.arms[0].name])
            for arm in study.arms
            if last[arm.name]
        ]
        tested = [row for row in of_prompting if row.p_value is not None]
        adjusted = dict(zip([row.arm for row in tested], holm([row.p_value or 0.0 for row in tested]), strict=True))
        found += [dataclasses.replace(row, p_holm=adjusted.get(row.arm)) for row in of_prompting]
    return found


def _rows(study: Study, root: epath.Path, prompting: str) -> tuple[dict[str, BySeed], dict[str, BySeed]]:
    """Return the score rows of the first and of the last model of each finished run, by arm and seed."""
    first: dict[str, BySeed] = {arm.name: {} for arm in study.arms}
    last: dict[str, BySeed] = {arm.name: {} for arm in study.arms}
    for arm in study.arms:
        for seed in study.seeds:
            folder = RunFolder(root / arm.folder / f"seed-{seed}")
            if not folder.manifest("report").exists():  # the last stage of a run
                continue
            scores: Scores = read_scores(folder)
            rows = scores.of(prompting)
            if scores.models and scores.models[-1] in rows:
                last[arm.name][seed] = rows[scores.models[-1]]
                if scores.models[0] in rows and len(scores.models) > 1:
                    first[arm.name][seed] = rows[scores.models[0]]
    return first, last


def _result(arm: str, prompting: str, first: BySeed, last: BySeed, control: BySeed) -> Result:
    seeds = tuple(last)
    some = last[seeds[0]]
    result = Result(arm, prompting, seeds, len(some), some[0]["num_paths"], _accuracy(first), _estimate(_correct(last)))
    shared = [seed for seed in seeds if seed in control]
    if last is control or not shared:
        return result
    pairs = [_paired(control[seed], last[seed]) for seed in shared]
    if not all(pairs):
        return result
    gains = [[float(after) - before for before, after in of_seed] for of_seed in pairs]
    together = [pair for of_seed in pairs for pair in of_seed]
    p_value = mcnemar([before for before, _ in together], [after for _, after in together])
    return dataclasses.replace(result, difference=seeds_estimate(gains, -1.0, 1.0), p_value=p_value)


def _correct(rows: BySeed) -> list[list[float]]:
    return [[float(row["correct"]) for row in of_seed] for of_seed in rows.values()]


def _accuracy(rows: BySeed) -> Estimate | None:
    return _estimate(_correct(rows)) if rows else None


def _estimate(scores: Sequence[Sequence[float]]) -> Estimate:
    return seeds_estimate(scores, 0.0, 1.0)


def _paired(before: Sequence[Record], after: Sequence[Record]) -> list[tuple[bool, bool]]:
    """Return the scores of the questions that both have, in pairs."""
    of_id = {row["id"]: row["correct"] for row in before}
    return [(of_id[row["id"]], row["correct"]) for row in after if row["id"] in of_id]


def result_table(study: Study, results: Sequence[Result]) -> Table:
    """Return the table for a terminal of 80 columns: accuracies in percent, differences in percentage points."""
    sizes = sorted({len(row.seeds) for row in results})
    table = grid(
        f"{study.name}: accuracy in %, mean over {'-'.join(map(str, sizes))} seeds of {results[0].n:,} questions",
        ("arm",),
        ("before", "after", "difference", "p"),
        f"difference: from '{study.arms[0].name}'; p: exact McNemar over the questions of all seeds, Holm over arms",
    )
    if study.published:
        table.add_column("published", justify="right", no_wrap=True)
    for prompting in dict.fromkeys(row.prompting for row in results):
        table.add_row(Text(PROMPTINGS[prompting], style="bold"))
        for row in results:
            if row.prompting == prompting:
                gain, before = row.difference, row.base
                table.add_row(
                    f"  {row.arm}",
                    "" if before is None else f"{100 * before.value:.1f}",
                    f"{100 * row.accuracy.value:.1f} ({100 * row.accuracy.low:.0f}-{100 * row.accuracy.high:.0f})",
                    "" if gain is None else f"{100 * gain.value:+.1f} ({100 * gain.low:+.0f} to {100 * gain.high:+.0f})",
                    "" if row.p_holm is None else p_text(row.p_holm),
                    *([published(study, row)] if study.published else []),
                )
    return table


def published(study: Study, row: Result) -> str:
    """Return the published accuracies of an arm before and after training, in percent, or "" where there are none."""
    before, after = study.published.get(row.arm, {}).get(row.prompting, (None, None))
    return " → ".join(f"{value:.1f}" for value in (before, after) if value is not None)


def cells(row: Result) -> list[str]:
    """Return a result as the cells of a row of the page's table."""
    gain = row.difference
    return [
        PROMPTINGS[row.prompting],
        row.arm,
        str(len(row.seeds)),
        f"{row.n:,}",
        "" if row.base is None else f"{100 * row.base.value:.1f}",
        f"{100 * row.accuracy.value:.1f}",
        f"{100 * row.accuracy.low:.1f} to {100 * row.accuracy.high:.1f}",
        "" if gain is None else f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})",
        "" if row.p_holm is None else p_text(row.p_holm),
    ]
