"""Compare two checkpoints on any number of tasks: scores as in the paper's table, and a test of each difference."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.evaluation.statistics import Estimate, gain_interval, holm, mcnemar, mean_estimate, share_estimate
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.voting.calibration import accuracy_by_confidence, calibration_error, pass_at_k, right_by_paths

SIZES = (1, 2, 4, 8, 16, 32, 64)  # numbers of paths to vote over
DRAWS = 16  # random subsets of a question's paths, for each size
NEEDED = (
    "id", "task", "prompting", "checkpoint", "temperature", "prompt_hash", "extractor", "gold", "correct", "answers", "right",
    "confidence", "num_paths", "unparsed", "truncated",
)  # fmt: skip
ONE_FILE = "evaluate both checkpoints on one question file (ids are line numbers where a file has none, so files share them)"
SAME = {  # fields that must be equal on both sides of an id, and the remedy when they differ
    "question_hash": ONE_FILE,  # optional in score files
    "gold": ONE_FILE,
    "prompt_hash": "evaluate both checkpoints with the same questions, exemplars, data.shots, data.chat and chat template",
}


@dataclass(frozen=True)
class Side:
    """The scores of one checkpoint on the questions of a comparison."""

    paths: int  # per question
    temperature: float
    accuracy: Estimate
    f1: Estimate | None  # for answers of type span
    vote_at: dict[int, Estimate]  # by k: accuracy of the vote over k of the stored paths; 1 = mean@m
    pass_at: dict[int, Estimate]  # by k: the chance that one of k paths is right
    calibration_error: float  # of the vote share
    unparsed: float  # share of paths without an answer
    truncated: float  # share of paths cut off at the token limit


@dataclass(frozen=True)
class Comparison:
    """One task and prompting method, before and after, on the questions of both sides."""

    task: str
    domain: str  # "in", "out", or "" for a task outside the paper
    prompting: str
    n: int
    before: Side
    after: Side
    gain: float
    gain_low: float  # 95% interval of the mean of the paired gains
    gain_high: float
    p_value: float  # exact McNemar
    p_holm: float  # adjusted over all comparisons (Holm)

    def as_record(self) -> Record:
        return asdict(self)


def scores_below(folder: epath.Path) -> dict[tuple[str, str], list[Record]]:
    """Return the score rows of all files below a folder, by (task, prompting). Raises UserError when there are none."""
    scores: dict[tuple[str, str], list[Record]] = {}
    for file in sorted(_files(folder)):
        for row in read_jsonl(file):
            missing = [name for name in NEEDED if name not in row]
            if missing or row["prompting"] not in PROMPTINGS:
                raise UserError(
                    f"{file}: not a file of scores; a row has {', '.join(row)}"
                    + (f"; it lacks {', '.join(missing)}. " if missing else f", of an unknown prompting {row['prompting']!r}. ")
                    + "`lmsi evaluate --output=DIR` writes them: name that DIR."
                )
            scores.setdefault((row["task"], row["prompting"]), []).append(row)
    if not scores:
        raise UserError(f"{folder} holds no scores (*.jsonl); run `lmsi evaluate --output={folder}` first.")
    return scores


def _files(folder: epath.Path) -> list[epath.Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the --output of `lmsi evaluate`.")
    names = {f"{prompting}.jsonl" for prompting in PROMPTINGS}
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name != "metrics" and not path.name.startswith(".")]
    below = [path for child in folders for path in _files(child)]
    return below + [path for path in folder.iterdir() if path.name in names]


def compare(before: dict[tuple[str, str], list[Record]], after: dict[tuple[str, str], list[Record]]) -> list[Comparison]:
    """Return a comparison for each task and prompting that both sides have, the paper's tasks first.

    Raises UserError when they share none, or when their rows differ in questions, prompts or the version of the extraction.
    """
    order = [*DATASETS]
    shared = [key for key in before if key in after]
    if not shared:
        raise UserError(f"The two sides share no task and prompting: {_names(before)} against {_names(after)}.")
    shared.sort(key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[0], [*PROMPTINGS].index(key[1])))
    pairs = [_paired(" ".join(key), before[key], after[key]) for key in shared]
    p_values = [mcnemar([a["correct"] for a, _ in rows], [b["correct"] for _, b in rows]) for rows in pairs]
    return [
        _comparison(key, rows, p, adjusted)
        for key, rows, p, adjusted in zip(shared, pairs, p_values, holm(p_values), strict=True)
    ]


def _names(scores: dict[tuple[str, str], list[Record]]) -> str:
    return ", ".join(f"{task} {prompting}" for task, prompting in scores)


def _paired(name: str, before: list[Record], after: list[Record]) -> list[tuple[Record, Record]]:
    """Return the rows of each question on both sides. Raises UserError when they are not of the same questions and prompts."""
    first, second = (_by_id(name, rows) for rows in (before, after))
    if first.keys() != second.keys():
        raise UserError(
            f"{name}: {len(first)} questions before and {len(second)} after, of which {len(first.keys() & second.keys())} are "
            f"the same; a paired test needs the same questions on both sides."
        )
    versions = {row["extractor"] for row in (*before, *after)}
    if len(versions) > 1:
        raise UserError(
            f"{name}: answers were read by different versions of the extraction ({', '.join(map(str, versions))}); evaluate "
            f"both again."
        )
    pairs = [(row, second[id]) for id, row in first.items()]
    for field, remedy in SAME.items():
        differing = [(a, b) for a, b in pairs if field in a and field in b and a[field] != b[field]]
        if differing:
            a, b = differing[0]
            raise UserError(
                f"{name}: under {len(differing)} of {len(pairs)} ids the two sides differ; '{a['id']}' has "
                f"`{field}` {a[field]!r} before and {b[field]!r} after. To compare, {remedy}."
            )
    return pairs


def _by_id(name: str, rows: list[Record]) -> dict[str, Record]:
    """Return the rows of one side by id. Raises UserError when they mix checkpoints or temperatures, or repeat an id."""
    for field in ("checkpoint", "temperature"):
        values = list(dict.fromkeys(row[field] for row in rows))
        if len(values) > 1:
            raise UserError(
                f"{name}: the rows of one side are of {len(values)} different {field}s (`{field}` {values[0]!r} and "
                f"{values[1]!r}); name a folder with the scores of one."
            )
    by_id = {row["id"]: row for row in rows}
    if len(by_id) < len(rows):
        raise UserError(f"{name}: {len(rows) - len(by_id)} questions are scored more than once in one folder.")
    return by_id


def _comparison(key: tuple[str, str], rows: list[tuple[Record, Record]], p_value: float, p_holm: float) -> Comparison:
    sides = [[pair[i] for pair in rows] for i in (0, 1)]
    before, after = ([float(row["correct"]) for row in side] for side in sides)
    task, prompting = key
    return Comparison(
        task,
        DATASETS[task].domain if task in DATASETS else "",
        prompting,
        len(rows),
        _side(sides[0]),
        _side(sides[1]),
        (sum(after) - sum(before)) / len(rows),
        *gain_interval(before, after),
        p_value,
        p_holm,
    )


def votes_by_paths(rows: Sequence[Record], sizes: Sequence[int], draws: int) -> dict[int, Estimate]:
    """Return the accuracy of the vote over k of the stored paths, for each k of `sizes` and for all of the paths.

    Smaller votes are averages over `draws` random subsets. For all of the paths the result is the stored score, ties included.
    """
    stored = min(len(row["answers"]) for row in rows)
    answers, right = [row["answers"] for row in rows], [right_answers(row) for row in rows]
    valid = [row["valid"] for row in rows] if all("valid" in row for row in rows) else None
    shares = right_by_paths(answers, right, [size for size in sizes if size < stored], draws, valid=valid)
    estimates = {size: mean_estimate(values) for size, values in shares.items()}
    return {**estimates, stored: share_estimate(sum(row["correct"] for row in rows), len(rows))}


def right_answers(row: Record) -> set[str]:
    """Return the right answers among a question's paths, or the gold answer when the row has no `right` field."""
    if "right" in row:
        return {answer for answer, right in zip(row["answers"], row["right"], strict=True) if right}
    return set() if row["gold"] is None else {row["gold"]}


def _side(rows: Sequence[Record]) -> Side:
    n, paths = len(rows), sum(row["num_paths"] for row in rows)
    right = [row["right"] for row in rows]
    bins = accuracy_by_confidence([row["confidence"] for row in rows], [row["correct"] for row in rows])
    return Side(
        rows[0]["num_paths"],
        rows[0]["temperature"],
        share_estimate(sum(row["correct"] for row in rows), n),
        mean_estimate([row["f1"] for row in rows]) if all("f1" in row for row in rows) else None,
        votes_by_paths(rows, SIZES, DRAWS),
        {size: mean_estimate(pass_at_k(right, size)) for size in SIZES if size <= min(map(len, right))},
        calibration_error(bins),
        sum(row["unparsed"] for row in rows) / paths,
        sum(row["truncated"] for row in rows) / paths,
    )
