"""Advantages: how much better a path is than others, from rewards of shape (questions, m) on the host, in float64.

A group is the m paths of one question. Rewards that are all equal give advantages of exactly 0, whatever their value.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lmsi_jax.core.errors import UserError

STD_EPS = 1e-4  # added to standard deviations, as in trl; verl adds 1e-6


def _centred(rewards: np.ndarray) -> np.ndarray:
    """Return rewards minus the mean of their group; exactly 0 in a group of equal rewards, whose computed mean may differ."""
    varies = (rewards != rewards[:, :1]).any(axis=1, keepdims=True)
    return np.where(varies, rewards - rewards.mean(axis=1, keepdims=True), 0.0)


def _require_pairs(rewards: np.ndarray, name: str) -> None:
    if rewards.shape[1] < 2:
        raise UserError(f"The advantage estimator '{name}' compares the paths of a question, and there is {rewards.shape[1]}.")


def reinforce(rewards: np.ndarray, baseline: float = 0.0) -> np.ndarray:
    """Return r - b (Williams 1992). Unbiased for any baseline b that does not depend on the path; the default is 0."""
    return np.asarray(rewards, np.float64) - baseline


def rloo(rewards: np.ndarray) -> np.ndarray:
    """Return r_i minus the mean of the other rewards of the group (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740).

    That is m / (m - 1) times the distance from the mean of the group. Raises UserError for groups of one path.
    """
    rewards = np.asarray(rewards, np.float64)
    _require_pairs(rewards, "rloo")
    return _centred(rewards) * rewards.shape[1] / (rewards.shape[1] - 1)


def dr_grpo(rewards: np.ndarray) -> np.ndarray:
    """Return r - mean of the group, not divided by a deviation (Liu et al. 2025, arXiv 2503.20783)."""
    rewards = np.asarray(rewards, np.float64)
    _require_pairs(rewards, "dr_grpo")
    return _centred(rewards)


def grpo(rewards: np.ndarray, eps: float = STD_EPS) -> np.ndarray:
    """Return (r - mean) / (std + eps) of the group (Shao et al. 2024, arXiv 2402.03300), std with m - 1 degrees of freedom.

    Among 31 agreeing paths of 32 the dissenter has the advantage -5.5: for a reward by vote prefer `dr_grpo`.
    """
    rewards = np.asarray(rewards, np.float64)
    _require_pairs(rewards, "grpo")
    centred = _centred(rewards)
    return centred / (np.sqrt((centred**2).sum(axis=1, keepdims=True) / (rewards.shape[1] - 1)) + eps)


def batch_normalised(rewards: np.ndarray, eps: float = STD_EPS) -> np.ndarray:
    """Return r - mean of the group, divided by the deviation over the whole batch (arXiv 2508.08221)."""
    rewards = np.asarray(rewards, np.float64)
    _require_pairs(rewards, "batch_normalised")
    centred = _centred(rewards)
    return centred / (np.sqrt((centred**2).sum() / max(centred.size - 1, 1)) + eps)


def remax(rewards: np.ndarray, greedy: np.ndarray) -> np.ndarray:
    """Return r minus the reward of the question's greedy path, `greedy` of shape (questions,) (Li et al. 2023, 2310.10505)."""
    return np.asarray(rewards, np.float64) - np.asarray(greedy, np.float64)[:, None]


def positives_weighted(advantages: np.ndarray, weight: float = 0.1) -> np.ndarray:
    """Return advantages whose positive part is multiplied by `weight` (W-REINFORCE, Zhu et al. 2025, arXiv 2506.01347).

    1 is REINFORCE, and 0 learns from negatives only. 0.1 gains in accuracy and keeps the coverage of many samples there.
    """
    return np.where(advantages > 0, weight * advantages, advantages)


ESTIMATORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reinforce": reinforce,
    "rloo": rloo,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "batch_normalised": batch_normalised,
}  # those that need rewards alone


def gae(
    rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, gamma: float = 1.0, lam: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return (advantages, returns) of tokens, all (rows, tokens), by generalised advantage estimation (Schulman et al. 2016).

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, over the tokens of `mask`, which a row has at
    its beginning; the value after its last token is 0. Returns are A + V, before any whitening.
    """
    rewards, values, mask = (np.asarray(each, np.float64) for each in (rewards, values, mask))
    advantages, following = np.zeros_like(rewards), np.zeros(len(rewards))
    after = np.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * after - values[:, t]
        following = np.where(mask[:, t] > 0, delta + gamma * lam * following, 0.0)
        advantages[:, t] = following
        after = np.where(mask[:, t] > 0, values[:, t], 0.0)
    return advantages, (advantages + values) * mask


def path_advantages(
    scores: Sequence[float],
    values: Sequence[np.ndarray],
    penalties: Sequence[np.ndarray],
    trained: Sequence[bool],
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the advantages, whitened over all trained tokens, and the returns of the tokens of each path.

    `values` and `penalties` have a number for each token. The reward of a token is minus its penalty; that of the last token
    of a path also has the path's score. The advantages of paths that are not `trained` are 0.
    """
    lengths = [len(each) for each in values]
    shape = (len(values), max(lengths))
    rewards, known, mask = (np.zeros(shape) for _ in range(3))
    for i, length in enumerate(lengths):
        rewards[i, :length], known[i, :length], mask[i, :length] = -np.asarray(penalties[i]), values[i], 1.0
        rewards[i, length - 1] += scores[i]
    advantages, returns = gae(rewards, known, mask, gamma, lam)
    whitened = whiten(advantages, mask * np.array(trained)[:, None])
    return [whitened[i, :n] for i, n in enumerate(lengths)], [returns[i, :n] for i, n in enumerate(lengths)]


def whiten(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return values with mean 0 and variance 1 over all entries of the mask: those of the batch, never of a microbatch."""
    chosen = np.asarray(values, np.float64)[mask > 0]
    if len(chosen) < 2 or (chosen == chosen[0]).all():
        return np.zeros_like(values, np.float64)
    return np.where(mask > 0, (values - chosen.mean()) / np.sqrt(chosen.var(ddof=1) + 1e-8), 0.0)
