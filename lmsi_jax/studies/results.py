"""The results of a study: the accuracy of each arm, over its seeds, and its difference from the first arm."""

import dataclasses
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lmsi_jax.analysis.summary import Scores, grid, p_text, read_scores
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.evaluation.statistics import Estimate, SeedsEstimate, holm, seeds_estimate
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.workdir import check_workdir
from lmsi_jax.studies.study import Plan, Run, Study


@dataclasses.dataclass(frozen=True)
class Result:
    """The accuracy of one arm with one prompting, or on another task: of the last model of its runs.

    `base` is the accuracy of the first model of the same runs. `difference` and `p_holm` compare with the arm's control, the
    first arm of the study if it names no other, on the same questions and seeds. They are None for that arm itself, and where
    the arms share no seed or have other questions.
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


def read_results(plan: Plan) -> list[Result]:
    """Return the results of all arms that have finished runs, by prompting and then in the order of the arms."""
    found: list[Result] = []
    study, done = plan.study, [run for run in plan.runs if _is_finished(run)]
    for prompting in study.shown:
        first, last = _rows(study, done, prompting)
        of_prompting = [
            _result(arm.name, prompting, first[arm.name], last[arm.name], last[study.control(arm.name)])
            for arm in study.arms
            if last[arm.name]
        ]
        tested = [row for row in of_prompting if row.p_value is not None]
        adjusted = dict(zip([row.arm for row in tested], holm([row.p_value or 0.0 for row in tested]), strict=True))
        found += [dataclasses.replace(row, p_holm=adjusted.get(row.arm)) for row in of_prompting]
    return found


def _is_finished(run: Run) -> bool:
    """Return whether a run is done with the settings that the study has now."""
    if not run.folder.manifest("report").exists():  # of the last stage
        return False
    try:
        check_workdir(run.config, run.folder)
    except UserError:
        return False
    return True


def _rows(study: Study, done: Sequence[Run], prompting: str) -> tuple[dict[str, BySeed], dict[str, BySeed]]:
    """Return the score rows of the first and of the last model of each finished run, by arm and seed."""
    first: dict[str, BySeed] = {arm.name: {} for arm in study.arms}
    last: dict[str, BySeed] = {arm.name: {} for arm in study.arms}
    for run in done:
        scores: Scores = read_scores(run.folder)
        rows = scores.of(prompting) if prompting in PROMPTINGS else _of_other_task(run.folder, scores.models, prompting)
        if scores.models and scores.models[-1] in rows:
            last[run.arm.name][run.seed] = rows[scores.models[-1]]
            if scores.models[0] in rows and len(scores.models) > 1:
                first[run.arm.name][run.seed] = rows[scores.models[0]]
    return first, last


def _of_other_task(folder: RunFolder, models: Sequence[str], task: str) -> dict[str, list[Record]]:
    """Return the score rows of a task that was only tested, by model."""
    found: dict[str, list[Record]] = {}
    for model in models:
        file = folder.transfer(model)
        rows = [row for row in read_jsonl(file) if (row["kind"], row["name"]) == ("task", task)] if file.exists() else []
        found |= {model: rows} if rows else {}
    return found


def title(shown: str) -> str:
    """Return a prompting or another task in words."""
    return PROMPTINGS.get(shown, shown)


def _result(arm: str, prompting: str, first: BySeed, last: BySeed, control: BySeed) -> Result:
    seeds = tuple(last)
    some = last[seeds[0]]
    accuracy = _accuracy(last)
    assert accuracy is not None
    result = Result(arm, prompting, seeds, len(some), some[0]["num_paths"], _accuracy(first), accuracy)
    shared = [seed for seed in seeds if seed in control]
    if last is control or not shared:
        return result
    if any(_asked(control[seed]) != _asked(last[seed]) for seed in shared):
        return result
    gains = {seed: _gains(control[seed], last[seed]) for seed in shared}
    same = _same_questions({seed: last[seed] for seed in shared})
    difference = seeds_estimate(list(gains.values()), -1.0, 1.0, same_questions=same)
    return dataclasses.replace(result, difference=difference, p_value=difference.p_value)


def _asked(rows: Sequence[Record]) -> list[tuple[str, str]]:
    """Return what identifies the questions of score rows, in order."""
    return sorted((row["id"], row.get("question_hash", "")) for row in rows)


def _same_questions(rows: BySeed) -> bool:
    first, *others = (_asked(of_seed) for of_seed in rows.values())
    return all(asked == first for asked in others)


def _by_id(rows: Sequence[Record]) -> list[float]:
    return [float(row["correct"]) for row in sorted(rows, key=lambda row: row["id"])]


def _gains(before: Sequence[Record], after: Sequence[Record]) -> list[float]:
    return [new - old for old, new in zip(_by_id(before), _by_id(after), strict=True)]


def _accuracy(rows: BySeed) -> SeedsEstimate | None:
    if not rows:
        return None
    return seeds_estimate([_by_id(of_seed) for of_seed in rows.values()], 0.0, 1.0, same_questions=_same_questions(rows))


def result_table(study: Study, results: Sequence[Result]) -> Table:
    """Return the table for a terminal of 80 columns: accuracies in percent, differences in percentage points."""
    sizes = sorted({len(row.seeds) for row in results})
    table = grid(
        f"{study.name}: accuracy in %, mean over {'-'.join(map(str, sizes))} seeds of {results[0].n:,} questions",
        ("arm",),
        ("before", "after", "difference", "p"),
        f"difference: from {_control_text(study)}; p: Student's t over seeds (one seed: McNemar), Holm over arms",
    )
    if study.published:
        table.add_column("published", justify="right", no_wrap=True)
    for prompting in dict.fromkeys(row.prompting for row in results):
        table.add_row(Text(title(prompting), style="bold"))
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


def _control_text(study: Study) -> str:
    return "the arm that the study names" if study.controls else f"'{study.arms[0].name}'"


def published(study: Study, row: Result) -> str:
    """Return the published accuracies of an arm before and after training, in percent, or "" where there are none."""
    before, after = study.published.get(row.arm, {}).get(row.prompting, (None, None))
    return " → ".join(f"{value:.1f}" for value in (before, after) if value is not None)


def cells(row: Result) -> list[str]:
    """Return a result as the cells of a row of the page's table."""
    gain = row.difference
    return [
        title(row.prompting),
        row.arm,
        str(len(row.seeds)),
        f"{row.n:,}",
        "" if row.base is None else f"{100 * row.base.value:.1f}",
        f"{100 * row.accuracy.value:.1f}",
        f"{100 * row.accuracy.low:.1f} to {100 * row.accuracy.high:.1f}",
        "" if gain is None else f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})",
        "" if row.p_holm is None else p_text(row.p_holm),
    ]
