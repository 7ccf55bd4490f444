"""Over-optimisation of a reward model (Gao, Schulman and Hilton 2022, arXiv 2210.10760): how far to trust a proxy.

With d = sqrt(KL(policy | initial)) the true reward first rises and then falls: R = d (alpha - beta d) for the best of n
samples, and R = d (alpha - beta log d) under reinforcement learning.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmsi_jax.core.errors import UserError

How = Literal["best_of_n", "rl"]
Numbers = Sequence[float] | Sequence[int] | np.ndarray


def best_of_n_kl(n: int) -> float:
    """Return the divergence of the best of n samples from one sample: log n - (n - 1) / n nats."""
    return math.log(n) - (n - 1) / n


def best_of_n(proxy: Numbers, gold: Numbers, n: int) -> float:
    """Return the expected gold reward of the sample with the best proxy among n of a pool, over all subsets of n, exactly.

    Of the pool sorted by proxy, sample i (from 1) is the best of a subset with probability C(i - 1, n - 1) / C(N, n). Samples
    of equal proxies share their chance. Raises UserError when the pool is smaller than n.
    """
    size = len(proxy)
    if not 1 <= n <= size:
        raise UserError(f"The best of n={n} needs a pool of at least as many samples; there are {size}.")
    proxies, golds = np.asarray(proxy, float), np.asarray(gold, float)
    order = np.argsort(proxies, kind="stable")
    log_c = _log_binomials(size, n)
    weights = np.exp(log_c - _log_binomial(size, n))
    sorted_gold, sorted_proxy = golds[order], proxies[order]
    total, start = 0.0, 0
    while start < size:
        end = int(np.searchsorted(sorted_proxy, sorted_proxy[start], side="right"))
        total += weights[start:end].sum() * sorted_gold[start:end].mean()
        start = end
    return float(total)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_binomials(size: int, n: int) -> np.ndarray:
    """Return log C(i - 1, n - 1) for i = 1 .. size; -inf where it is 0."""
    return np.array([_log_binomial(i - 1, n - 1) if i >= n else -math.inf for i in range(1, size + 1)])


@dataclass(frozen=True)
class Fit:
    """The coefficients of a curve, the distance d of its peak, and the share of the variance that it explains."""

    how: How
    alpha: float
    beta: float
    peak: float
    r_squared: float


def fit(distances: Numbers, rewards: Numbers, how: How) -> Fit:
    """Fit R = d (alpha - beta d) or R = d (alpha - beta log d) by least squares; R is the gain over the initial policy.

    Raises UserError for less than three distances above 0, which cannot show a peak.
    """
    d, r = np.asarray(distances, float), np.asarray(rewards, float)
    kept = d > 0
    if kept.sum() < 3:
        raise UserError(f"{int(kept.sum())} distances above 0 cannot show a peak; measure at least three.")
    d, r = d[kept], r[kept]
    design = np.stack([d, -d * (d if how == "best_of_n" else np.log(d))], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(design, r, rcond=None)
    residual = r - design @ np.array([alpha, beta])
    spread = float(((r - r.mean()) ** 2).sum())
    peak = math.inf
    if beta > 0:
        peak = alpha / (2 * beta) if how == "best_of_n" else math.exp(min(alpha / beta - 1, 700))
    return Fit(how, float(alpha), float(beta), float(peak), 1 - float((residual**2).sum()) / spread if spread else 1.0)
