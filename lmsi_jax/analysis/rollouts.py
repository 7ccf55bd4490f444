"""What the report shows of reinforcement learning: the course of rewards and signals, what the guard saw, and some groups."""

import dataclasses
from collections.abc import Mapping, Sequence

from lmsi_jax.analysis.rounds import NOTHING, Gold
from lmsi_jax.core.files import read_json
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.voting.majority import vote

STAGE = "rl"
SHOWN = 3  # groups of the first and of the last batch that the page shows
WINDOW = 10  # batches of rollouts whose mean the sentences give
SAMPLED = {"reward": "reward", "vote_share": "vote share", "frac_reward_zero_std": "equal rewards"}
PROBED = {
    "probe/vote_share": "vote share", "probe/twin_agreement": "twins agree", "probe/answers_across": "different answers",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Course:
    """Sentences about a run of reinforcement learning, its curves by name, and groups of paths with their rewards.

    `sampled` are moving means over `WINDOW` batches of rollouts; `probed` are of the checks. `audited` are moving means of what
    is right by the gold answers, and empty without them.
    """

    sentences: list[str]
    sampled: Mapping[str, list[tuple[int, float]]]
    probed: Mapping[str, list[tuple[int, float]]]
    audited: Mapping[str, list[tuple[int, float]]]
    groups: list[tuple[str, list[Record]]]
    warns: bool


def read_course(folder: RunFolder, questions: Mapping[str, str], gold: Gold) -> Course | None:
    """Return what the report shows, or None when the run has no rollouts yet."""
    batches = read_metrics(folder.stage_metrics(STAGE, "rollouts"))
    steps = read_metrics(folder.stage_metrics(STAGE))
    if not batches:
        return None
    guard = read_json(folder.guard) if folder.guard.exists() else {}
    sampled = {title: _moving(_curve(batches, name)) for name, title in SAMPLED.items()}
    probed = {title: curve for name, title in PROBED.items() if (curve := _curve(steps, name))}
    audited = {title: _moving(curve) for title, curve in _audit(folder, gold).items() if curve}
    sentences = [_course(batches), *_steps(steps), *_audited(audited), *_guard(guard)]
    return Course(sentences, sampled, probed, audited, _groups(folder, questions), bool(guard.get("alarm")))


def _curve(rows: Sequence[Record], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


def _moving(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    parts = [curve[max(0, end - WINDOW) : end] for end in range(1, len(curve) + 1)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _mean(rows: Sequence[Record], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def _course(batches: Sequence[Record]) -> str:
    first, last = batches[:WINDOW], batches[-WINDOW:]
    words = []
    for name, title in (
        ("reward", "reward"), ("vote_share", "vote share"), ("answers", "different answers of a group"),
        ("completions/mean_length", "tokens of a path"),
    ):  # fmt: skip
        words.append(f"{title} {_mean(first, name):.2f} → {_mean(last, name):.2f}")
    return (
        f"{len(batches):,} batches of rollouts; means of the first and of the last {len(last)}: {', '.join(words)}. In "
        f"{_mean(batches, 'frac_reward_zero_std'):.0%} of the groups all rewards were equal"
        + (", which still teaches the values of states." if "explained_variance" in last[-1] else ", which teaches nothing.")
    )


def _steps(steps: Sequence[Record]) -> list[str]:
    if not steps:
        return []
    first, last = steps[0], steps[-1]
    kl = f", and the divergence from the initial model is {last['kl']:.3f} nats a token" if "kl" in last else ""
    return [
        f"The entropy of a token goes from {first['entropy']:.2f} to {last['entropy']:.2f} nats{kl}. The first ratio of the "
        f"trained to the sampling policy is {first['ratio']:.5f}; it is 1 when both compute the same. A loss near 0 is normal: "
        f"advantages sum to about 0, and the gradient does not."
    ]


def _audit(folder: RunFolder, gold: Gold) -> dict[str, list[tuple[int, float]]]:
    """Return, by step, the shares that are right of paths, of votes, and of the paths with the best score of their group.

    Only questions with a gold answer count; for the best scores also only groups whose scores differ. A score is the reward
    before a divergence.
    """
    groups: dict[tuple[int, str], list[tuple[str | None, float]]] = {}
    for row in read_jsonl(folder.rollouts) if folder.rollouts.exists() else ():
        if row["id"] in gold:
            score = row["score"] if "score" in row else row["reward"]  # rows without a score have no divergence in their reward
            groups.setdefault((row["step"], row["id"]), []).append((row["answer"], score))
    found: dict[str, dict[int, list[bool]]] = {"paths": {}, "votes": {}, "rewarded paths": {}}
    for (step, id), paths in groups.items():
        answers, scores = zip(*paths, strict=True)
        right = [gold.right(id, answer) for answer in answers]
        found["paths"].setdefault(step, []).extend(right)
        found["votes"].setdefault(step, []).append(gold.right(id, vote(answers, tie="abstain").answer))
        if len(set(scores)) > 1:
            rewarded = [is_right for is_right, score in zip(right, scores, strict=True) if score == max(scores)]
            found["rewarded paths"].setdefault(step, []).extend(rewarded)
    return {name: [(step, sum(of) / len(of)) for step, of in sorted(by_step.items())] for name, by_step in found.items()}


def _audited(audited: Mapping[str, list[tuple[int, float]]]) -> list[str]:
    if not audited:
        return []
    parts = [f"{name} {curve[min(WINDOW, len(curve)) - 1][1]:.1%} → {curve[-1][1]:.1%}" for name, curve in audited.items()]
    means = f"means of the first and of the last batches: {', '.join(parts)}"
    return [f"Audit, right by the gold answers, {means}. The guard reads none of this."]


def _guard(guard: Record) -> list[str]:
    if not guard:
        return []
    if not guard["alarm"]:
        return ["The guard saw no collapse."]
    if not guard.get("guarded", True):
        return [f"The guard was off; at the end it would have had an alarm. {guard['alarm']}"]
    kept = f"the state of step {guard['kept']}" if guard["kept"] else "the model before training"
    return [f"The guard ended the run after step {guard['step']} and kept {kept}. {guard['alarm']}"]


def _groups(folder: RunFolder, questions: Mapping[str, str]) -> list[tuple[str, list[Record]]]:
    """Return some groups of the first and of the last batch, with a title each."""
    if not folder.rollouts.exists():
        return []
    first: dict[str, list[Record]] = {}
    last: dict[str, list[Record]] = {}
    final = 0
    for row in read_jsonl(folder.rollouts):
        if row["step"] == 1:
            first.setdefault(row["id"], []).append(_shown(row))
        if row["step"] > final:
            final, last = row["step"], {}
        last.setdefault(row["id"], []).append(_shown(row))
    found = []
    for step, groups in ((1, first), (final, last)):
        found += [(f"step {step}: {questions.get(id, id)}", rows) for id, rows in list(groups.items())[:SHOWN]]
    return found


def _shown(row: Record) -> Record:
    return {
        "text": row["text"],
        "answer": row["answer"] if row["answer"] is not None else NOTHING,
        "rewards": ", ".join(f"{name} {value:g}" for name, value in row["rewards"].items()),
        "advantage": f"{row['advantage']:+.2f}",
    }
