"""What limits the conclusions from a run, in sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lmsi_jax.analysis.faithfulness import BIASED
from lmsi_jax.analysis.plan import title
from lmsi_jax.analysis.rounds import Round, share
from lmsi_jax.analysis.summary import Score
from lmsi_jax.analysis.validity import Steps
from lmsi_jax.core.records import Record
from lmsi_jax.core.settings import build
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.rl.rewards import VALID_VOTE
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.voting.config import SelectConfig


def method(config: Mapping[str, Any]) -> dict[str, str]:
    """Return how a run prompts, votes, selects and formats, as text by label."""
    facts = {}
    if "data" in config:
        data = build(DataConfig, config["data"])
        shots = f"{data.shots} exemplars" if data.shots else "all exemplars"
        facts["Prompts"] = f"{shots} of {data.exemplars or 'the task'}" + (", in the chat template" if data.chat else "")
    if "select" in config:
        select = build(SelectConfig, config["select"])
        facts["Vote"] = f"{select.vote}, ties: {select.tie}"
        facts["Selection"] = f"rule {select.rule}, vote share from {select.min_confidence:g} on"
        facts["Checks of steps"] = ", ".join(select.checks) + ("" if select.reads_steps else "; none decides")
        facts["Reviews that overrule the vote"] = select.reviews or "none"
    if "format" in config:
        format = build(FormatConfig, config["format"])
        facts["Formats"] = ", ".join(format.formats)
        facts["Suggestions in training prompts"] = "; ".join(format.hints) or "none"
    return facts


def limits(config: Mapping[str, Any], rounds: Sequence[Round], steps: Sequence[Steps], scores: Sequence[Score]) -> list[str]:
    """Return sentences on what a run could not decide, read or finish, and on what it selected by."""
    sentences = []
    for round, checked in zip(rounds, steps, strict=True):
        paths = sum(vote["num_paths"] for vote in round.votes)
        silent = sum(len(vote["abstained"]) for vote in round.votes)
        shares = [vote["confidence"] for vote in round.votes if vote["answer"] is not None]
        weak = sum(value <= 0.5 for value in shares)
        sentences.append(
            f"{round.name.capitalize()}: {share(silent, paths)} of the paths have no readable answer, and "
            f"{share(weak, len(shares))} of the labels have a vote share of at most one half."
        )
        rows = [row for by_path in checked.values() for row in by_path.values()]
        verdicts = Counter(each["verdict"] for row in rows for step in row["steps"] for each in step["statements"])
        if verdicts:
            sentences.append(
                f"{round.name.capitalize()}: {share(verdicts['unchecked'], verdicts.total())} of the arithmetic statements are "
                f"not checked, and the checks see no error of reasoning whose arithmetic is right."
            )
    cut = [row for row in scores if row.truncated > 0]
    if cut:
        worst = max(cut, key=lambda row: row.truncated)
        sentences.append(
            f"Up to {worst.truncated:.1%} of the held-out paths of a model ({title(worst.model)}) were cut off at the token "
            f"limit."
        )
    return sentences + _selected_by(config)


def _selected_by(config: Mapping[str, Any]) -> list[str]:
    """Return a warning for a run whose training rows were selected by checks of the reasoning."""
    select, rl = build(SelectConfig, config.get("select", {})), config.get("rl", {})
    used = list(select.checks) if select.reads_steps else []
    rewards = rl.get("rewards", [])
    used += rl.get("checks", []) if VALID_VOTE in rewards else ["arithmetic"] if "steps" in rewards else []
    if not used:
        return []
    return [
        f"The model was trained by checks of its reasoning ({', '.join(used)}). Training against a check can teach to "
        f"pass it in place of reasoning well (Baker et al. 2025), so these checks no longer audit the trained model. Audit it "
        f"by others: held-out accuracy, human review, lmsi faithfulness."
    ]


def biases(measures: Sequence[Record]) -> list[str]:
    """Return the suggestions that move a model's answers beyond chance, in sentences."""
    return [
        f"{title(row['model'])}: {row['measure'].removesuffix(f': {BIASED}')} moves {row['value']:.1%} of the answers to the "
        f"suggested one [{row['low']:.1%}, {row['high']:.1%}]."
        for row in measures
        if row["measure"].endswith(BIASED) and row.get("low", 0.0) > 0
    ]
