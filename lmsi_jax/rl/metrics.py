"""Metrics of a batch of rollouts, under the names of trl and verl where the meaning is theirs."""

from collections.abc import Sequence

import numpy as np

from lmsi_jax.core.records import Record
from lmsi_jax.voting.majority import vote

Groups = Sequence[Sequence[Record]]  # the rollouts of each question


def group_metrics(groups: Groups, rewards: Sequence[str]) -> dict[str, float]:
    """Return means over all paths, or over groups. No gold answer is read, unless it is a reward.

    `frac_reward_zero_std` is the share of groups whose rewards, before a divergence, are all equal. `answers` is the number of
    different answers of a group, and `answers_across` that of different winning answers, as a share of the groups.
    With values of states, `explained_variance` is the share of the variance of returns over tokens that they foresaw.
    """
    paths = [row for group in groups for row in group]
    totals = [[row["reward"] for row in group] for group in groups]
    lengths = [row["num_tokens"] for row in paths]
    votes = [vote([row["answer"] for row in group], tie="abstain") for group in groups]
    winners = [outcome.answer for outcome in votes if outcome.answer is not None]
    return {
        "reward": float(np.mean([row["reward"] for row in paths])),
        "reward_std": float(np.mean([np.std(each, ddof=1) if len(each) > 1 else 0.0 for each in totals])),
        "frac_reward_zero_std": float(np.mean([len({row["score"] for row in group}) == 1 for group in groups])),
        **{f"rewards/{name}/mean": float(np.mean([row["rewards"][name] for row in paths])) for name in rewards},
        "completions/mean_length": float(np.mean(lengths)),
        "completions/max_length": float(np.max(lengths)),
        "completions/clipped_ratio": float(np.mean([row["finish"] == "length" for row in paths])),
        "unread": float(np.mean([row["answer"] is None for row in paths])),
        "vote_share": float(np.mean([outcome.confidence for outcome in votes])),
        "answers": float(np.mean([len(outcome.counts) for outcome in votes])),
        "answers_across": len(set(winners)) / len(groups),
        "num_tokens": float(np.sum(lengths)),
        **(_explained(paths) if "values" in paths[0] else {}),
    }


def vote_shares(groups: Groups) -> list[float]:
    """Return the share of paths of each group that have its winning answer; 0 where answers have equally many."""
    return [vote([row["answer"] for row in group], tie="abstain").confidence for group in groups]


def _explained(paths: Sequence[Record]) -> dict[str, float]:
    returns, values = (np.concatenate([row[name] for row in paths]) for name in ("returns", "values"))
    return {"explained_variance": float(1 - np.var(returns - values) / np.var(returns))} if np.var(returns) > 0 else {}
