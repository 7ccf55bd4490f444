"""The known limits of self-improvement, measured on the records of a run: consensus, reinforced errors, diversity, knowledge.

No measure of consensus, diversity or knowledge reads a gold answer of a training question. Held-out scores have gold answers.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from lmsi_jax.analysis.kinds import Kind, weak_kinds
from lmsi_jax.analysis.limits.limit import Limit
from lmsi_jax.analysis.plan import title
from lmsi_jax.analysis.rounds import NOTHING, Round, interval, share
from lmsi_jax.analysis.summary import Scores
from lmsi_jax.core.records import Record
from lmsi_jax.evaluation.compare import right_answers
from lmsi_jax.evaluation.statistics import Estimate, gain_interval, mean_estimate, share_estimate
from lmsi_jax.voting.calibration import pass_at_k
from lmsi_jax.voting.majority import vote

BINS = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))


def vote_limits(
    scores: Scores, rounds: Sequence[Round], questions: Mapping[str, str], held_out: Mapping[str, str]
) -> list[Limit]:
    """Return the limits that the records of a run allow to measure. Questions are texts by id."""
    voted = [round for round in rounds if round.votes]
    votes, greedy = scores.of("self_consistency"), scores.of("cot")
    found = [consensus(votes, greedy, voted)] if voted or votes else []
    if len(votes) > 1:
        first, last = list(votes)[0], list(votes)[-1]
        found += [reinforced(votes[first], votes[last]), diversity({title(name): rows for name, rows in votes.items()})]
    return [*found, *knowledge(votes, voted, questions, held_out)]


def _within(value: float, low: float, high: float) -> bool:
    return low < value <= high or (low == 0.0 and value == 0.0)


def consensus(votes: Mapping[str, list[Record]], greedy: Mapping[str, list[Record]], voted: Sequence[Round]) -> Limit:
    """Return what each range of vote shares contributes to the training paths of the first round, and to the gain.

    The gain is that of greedy decoding on held-out questions, by the first model's vote share.
    """
    trained = Counter(id for id, _ in voted[0].trained or ()) if voted else Counter[str]()
    labels = {row["id"]: row["confidence"] for row in voted[0].votes} if voted else {}
    base = {row["id"]: row["confidence"] for row in next(iter(votes.values()), [])}
    before, after = _sides(greedy)
    total = sum(after[id] - before[id] for id in after if id in before)
    rows, drawn, weakest = [], list[tuple[str, Estimate, Estimate | None]](), ""
    for low, high in BINS:
        label_ids = [id for id, value in labels.items() if _within(value, low, high)]
        asked = [id for id, value in base.items() if _within(value, low, high) and id in before and id in after]
        paths = sum(trained[id] for id in label_ids)
        gain = sum(after[id] - before[id] for id in asked)
        cells = (
            f"{low:.0%} to {high:.0%}",
            share(len(label_ids), len(labels)),
            share(paths, trained.total()),
            share(len(asked), len(base)),
            f"{100 * sum(before[id] for id in asked) / len(asked):.1f}" if asked else NOTHING,
            f"{100 * sum(after[id] for id in asked) / len(asked):.1f}" if asked else NOTHING,
            f"{100 * gain / len(base):+.1f}" if base and before else NOTHING,
        )
        rows.append(cells)
        if asked:
            sides = [share_estimate(round(sum(side[id] for id in asked)), len(asked)) for side in (before, after)]
            drawn.append((f"vote share {cells[0]}", sides[1], sides[0]))
        if not weakest and labels:
            gain_of_all = f"{100 * total / max(len(base), 1):+.1f} points"
            gained = f". On held-out questions, {cells[6]} of the gain of {gain_of_all} are from those with as low a vote share"
            weakest = (
                f"Questions on which the first model hardly agrees with itself (a vote share of at most {high:.0%}) are "
                f"{cells[1]} of those to train on and give {cells[2]} of the training paths{gained if base and before else ''}."
            )
    head = ("vote share", "training questions", "training paths", "held out", "greedy before", "greedy after", "gain, points")
    return Limit("Reliance on consensus", weakest or "Nothing has been trained on yet.", head, tuple(rows), drawn=tuple(drawn))


def _sides(greedy: Mapping[str, list[Record]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return whether the first and the last model answer each question right, by id."""
    models = list(greedy.values())
    if len(models) < 2:
        return {}, {}
    first, last = ({row["id"]: float(row["correct"]) for row in rows} for rows in (models[0], models[-1]))
    return first, last


def state(row: Record) -> str:
    """Return "right", "wrong" or "undecided": without an answer, or with two answers of equally many votes."""
    if not vote(row["answers"]).margin:
        return "undecided"
    return "right" if row["correct"] else "wrong"


def reinforced(before: Sequence[Record], after: Sequence[Record]) -> Limit:
    """Return the flow of the votes on held-out questions, and how many wrong ones the last model is surer of."""
    later = {row["id"]: row for row in after}
    pairs = [(row, later[row["id"]]) for row in before if row["id"] in later]
    wrong = [(old, new) for old, new in pairs if state(old) == "wrong"]
    surer = sum(_share(new, old["prediction"]) > _share(old, old["prediction"]) for old, new in wrong)
    flow = Counter((state(old), state(new)) for old, new in pairs)
    states = ("right", "undecided", "wrong")
    rows = tuple((f"{old} before", *(f"{flow[old, new]:,}" for new in states)) for old in states)
    sentence = "No vote of the first model was wrong."
    if wrong:
        sentence = (
            f"Of {len(wrong):,} held-out questions on which the first model's vote was wrong, the last model gives the same "
            f"wrong answer a larger share of its paths in {interval(surer, len(wrong))}.{_by_chance(before)}"
        )
    return Limit("Reinforced errors", sentence, ("held-out votes", *(f"{name} after" for name in states)), rows)


def _by_chance(rows: Sequence[Record]) -> str:
    """Return how often one half of a model's own paths gives the wrong vote of the other half a larger share, as a sentence."""
    larger, wrong = 0, 0
    for row in rows:
        one, other = row["answers"][::2], row["answers"][1::2]
        counts = Counter(answer for answer in one if answer is not None).most_common(1)
        if counts and other and counts[0][0] not in right_answers(row):
            wrong += 1
            larger += other.count(counts[0][0]) / len(other) > one.count(counts[0][0]) / len(one)
    return f" Two halves of the first model's own paths differ so in {larger / wrong:.1%}." if wrong else ""


def _right(row: Record) -> list[bool]:
    """Return whether each path of a scored question is right."""
    right = right_answers(row)
    return [answer in right for answer in row["answers"]]


def _share(row: Record, answer: str | None) -> float:
    return sum(each == answer for each in row["answers"]) / len(row["answers"])


def diversity(votes: Mapping[str, Sequence[Record]]) -> Limit:
    """Return how different the paths of a question are, and whether any of them is right, for each model."""
    rows, coverage, distinct = [], {}, {}
    for name, scored in votes.items():
        k = min(row["num_paths"] for row in scored)
        covered = mean_estimate(pass_at_k([_right(row) for row in scored], k))
        coverage[name], distinct[name] = covered.value, sum(len(vote(row["answers"]).counts) for row in scored) / len(scored)
        rows.append(
            (
                name,
                f"{scored[0].get('temperature', math.nan):g}",
                f"{distinct[name]:.1f}",
                f"{sum(vote(row['answers']).entropy for row in scored) / len(scored):.2f}",
                f"{covered.value:.1%} [{covered.low:.1%}, {covered.high:.1%}]",
                f"{sum(row['correct'] for row in scored) / len(scored):.1%}",
            )
        )
    (first, *_, last), paths = list(votes), min(row["num_paths"] for scored in votes.values() for row in scored)
    first_rows, last_rows = ({row["id"]: float(any(_right(row))) for row in votes[name]} for name in (first, last))
    shared = [id for id in first_rows if id in last_rows]
    low, high = gain_interval([first_rows[id] for id in shared], [last_rows[id] for id in shared])
    sentence = (
        f"A question has {distinct[first]:.1f} different answers among {paths} paths before and {distinct[last]:.1f} after; "
        f"some path is right for {coverage[first]:.1%} of the questions before and {coverage[last]:.1%} after (a change of "
        f"{100 * low:+.1f} to {100 * high:+.1f} points)."
    )
    head = ("model", "temperature", "different answers", "entropy, nats", f"pass@{paths}", "vote right")
    return Limit("Diversity", sentence, head, tuple(rows), warns=high < 0)


def knowledge(
    votes: Mapping[str, list[Record]], voted: Sequence[Round], questions: Mapping[str, str], held_out: Mapping[str, str]
) -> list[Limit]:
    """Return the kinds of questions on which the votes agree far less than elsewhere; their words tell, not gold answers.

    Such a kind may need what the model does not know: the vote then cannot teach it.
    """
    if not voted:
        return []
    shares = {row["id"]: row["confidence"] for row in voted[0].votes}
    trained = Counter(id for id, _ in voted[0].trained or ())
    kinds = weak_kinds(questions, shares)
    rows = [_kind_row(kind, shares, trained, votes, held_out) for kind in kinds]
    none = _unsolved(votes)
    if not kinds:
        sentence = "Among the words of the questions, none tells a kind on which the votes agree far less than on the others."
        return [Limit("Gaps of knowledge", f"{sentence}{none}")]
    first, ids = kinds[0], set(kinds[0].ids)
    other = [value for id, value in shares.items() if id not in ids]
    sentence = (
        f"The model may lack what {first.name} need. They are {share(len(ids), len(shares))} of the questions to train on and "
        f"{share(sum(trained[id] for id in ids), trained.total())} of the training paths, and their votes have a mean share of "
        f"{sum(shares[id] for id in ids) / len(ids):.2f} (others: {sum(other) / len(other):.2f}; rank-sum test, "
        f"p = {first.p_value:.0e}). A vote cannot teach what no path knows.{none}"
    )
    head = (
        "kind of question", "training questions", "training paths", "vote share", "held out: share before", "after",
        "held out: vote right before", "after",
    )  # fmt: skip
    return [Limit("Gaps of knowledge", sentence, head, tuple(rows), warns=True)]


def _kind_row(
    kind: Kind,
    shares: Mapping[str, float],
    trained: Counter[str],
    votes: Mapping[str, list[Record]],
    held_out: Mapping[str, str],
) -> tuple[str, ...]:
    models = list(votes.values())
    cells = []
    for rows in (models[0], models[-1]) if len(models) > 1 else ():
        of_kind = [row for row in rows if kind.has(held_out.get(row["id"], ""))]
        cells.append(
            (
                f"{sum(row['confidence'] for row in of_kind) / len(of_kind):.2f}" if of_kind else NOTHING,
                share(sum(row["correct"] for row in of_kind), len(of_kind)),
            )
        )
    before, after = cells if cells else ((NOTHING, NOTHING), (NOTHING, NOTHING))
    return (
        kind.name,
        f"{len(kind.ids):,} ({share(len(kind.ids), len(shares))})",
        share(sum(trained[id] for id in kind.ids), trained.total()),
        f"{sum(shares[id] for id in kind.ids) / len(kind.ids):.2f}",
        before[0],
        after[0],
        before[1],
        after[1],
    )


def _unsolved(votes: Mapping[str, list[Record]]) -> str:
    """Return how many held-out questions no path of the first and of the last model gets right, as a sentence."""
    models = list(votes.values())
    if len(models) < 2:
        return ""
    counts = [sum(not any(_right(row)) for row in rows) / len(rows) for rows in (models[0], models[-1])]
    return f" No path is right for {counts[0]:.1%} of the held-out questions before and {counts[1]:.1%} after."
