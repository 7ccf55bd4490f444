"""A reward model: a language model whose last hidden state of an answer gives a score (Ouyang et al. 2022, arXiv 2203.02155).

The score is read at a position that is stored with the row, never searched for by a token id. All answers of a ranking are in
one row and share its prompt, which is computed once.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.metrics import Mean
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.rl.head import ModelWithHead
from lmsi_jax.rl.preferences import pairs_of_ranking
from lmsi_jax.rl.rows import PROMPT_BUCKET
from lmsi_jax.training.objective import Batch, Objective, hidden_states


def scores(config: ModelConfig, scorer: ModelWithHead, batch: Batch, remat: str = "none") -> Float[Array, "n k"]:
    """Return the score of each answer of each row, at the positions `ends`."""
    states = hidden_states(config, scorer.model, batch, remat)
    return scorer.read(jnp.take_along_axis(states, batch.rows["ends"][:, :, None], axis=1))


@functools.cache
def reward_objective(config: ModelConfig, centring: float, remat: str = "none") -> Objective:
    """Return the mean Bradley-Terry loss of rankings (see `preferences.pairs_of_ranking`), plus `centring` x score^2.

    Rows are those of `pack_rankings`. Metrics: `accuracy` of the pairs that are not tied, and `score`.
    """

    def objective(params: Any, batch: Batch) -> tuple[Mean, dict[str, Mean]]:
        ranks, found = batch.rows["ranks"], scores(config, params, batch, remat)
        real = ranks > 0
        losses = pairs_of_ranking(found, ranks)
        losses += centring * jnp.sum(jnp.where(real, found**2, 0.0), axis=1) / jnp.maximum(real.sum(axis=1), 1)
        used = real.any(axis=1)
        better = (ranks[:, :, None] < ranks[:, None, :]) & real[:, :, None] & real[:, None, :]
        ordered = better & (found[:, :, None] > found[:, None, :])
        metrics = {
            "accuracy": Mean(jnp.sum(ordered, dtype=jnp.float32), jnp.sum(better, dtype=jnp.float32)),
            "score": Mean(jnp.sum(jnp.where(real, found, 0.0)), jnp.sum(real, dtype=jnp.float32)),
        }
        return Mean(jnp.sum(jnp.where(used, losses, 0.0)), jnp.sum(used, dtype=jnp.float32)), metrics

    return objective


@dataclasses.dataclass(frozen=True)
class Answers:
    """The tokens of a prompt and of several answers to it, with their ranks; ranks of 0 are of answers without a ranking."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    ranks: Sequence[int]

    @property
    def row_tokens(self) -> int:
        """The tokens that the answers take in a row; each begins with the last token of the prompt."""
        return sum(1 + len(answer) for answer in self.answers)


def pack_rankings(
    items: Sequence[Answers], row_length: int, most: int, rows: int
) -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Return the arrays of `rows` rows, of which the first ones have an item each, and their prompts.

    An answer takes the last token of the prompt and all its own tokens; its score is read at the last one, at `ends`. Raises
    ValueError when the answers of an item are longer than a row.
    """
    shape = (rows, row_length)
    arrays = {name: np.zeros(shape, np.int32) for name in ("tokens", "segments", "positions")}
    of_item = {name: np.zeros((rows, most), np.int32) for name in ("ends", "ranks")}
    prompt_of = np.zeros(rows, np.int32)
    for r, item in enumerate(items):
        start, total = 0, item.row_tokens
        if total > row_length:
            raise ValueError(f"the {len(item.answers)} answers of a ranking take {total} tokens, more than {row_length=}")
        prompt_of[r] = r + 1
        for k, (answer, rank) in enumerate(zip(item.answers, item.ranks, strict=True)):
            at = slice(start, start + 1 + len(answer))
            arrays["tokens"][r, at] = [item.prompt[-1], *answer]
            arrays["segments"][r, at] = k + 1
            arrays["positions"][r, at] = len(item.prompt) - 1 + np.arange(1 + len(answer))
            of_item["ends"][r, k], of_item["ranks"][r, k] = at.stop - 1, rank
            start = at.stop
    return {**arrays, **of_item, "prompt": prompt_of}, [list(item.prompt[:-1]) for item in items]


@dataclasses.dataclass(frozen=True)
class RewardHead:
    """The head of a reward model, and the mean and deviation of its scores of reference answers, by which it is normalised.

    `wraps`: whether prompts are laid out as questions of a task.
    """

    head: tuple[float, ...]
    mean: float
    deviation: float
    wraps: bool = True

    def to_json(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self)) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> "RewardHead":
        fields = json.loads(content)
        return cls(tuple(fields.pop("head")), **fields)


@dataclasses.dataclass(frozen=True)
class Quality:
    """How well scores predict held-out pairs that are not tied.

    Attributes:
      pairs: their number.
      accuracy: the share whose better answer has the higher score; equal scores count half.
      nll: the mean of -log sigmoid(difference).
      calibration_error: the expected difference between sigmoid(|difference|) and accuracy, over ten bins.
      length_correlation: Pearson's, of scores and lengths of answers; 0 where either does not vary.
      shorter: the accuracy where the better answer is the shorter one; None without such pairs.
    """

    pairs: int
    accuracy: float
    nll: float
    calibration_error: float
    length_correlation: float
    shorter: float | None


def quality(found: Sequence[Sequence[float]], ranks: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]]) -> Quality:
    """Return the quality of scores of rankings; all three have a list for each ranking. Raises UserError without a pair."""
    differences, shorter = [], []
    for score, rank, length in zip(found, ranks, lengths, strict=True):
        for i in range(len(rank)):
            for j in range(len(rank)):
                if rank[i] < rank[j]:
                    differences.append(score[i] - score[j])
                    shorter.append(length[i] < length[j])
    if not differences:
        raise UserError("No held-out pair of answers has different ranks; give more rankings, or another --config.seed.")
    d, short = np.array(differences), np.array(shorter)
    right = (d > 0) + 0.5 * (d == 0)
    sure = 1 / (1 + np.exp(-np.abs(d)))
    bins = np.minimum(((sure - 0.5) * 20).astype(int), 9)
    gaps = [np.sum(bins == b) / len(d) * abs(sure[bins == b].mean() - right[bins == b].mean()) for b in set(bins.tolist())]
    flat_scores, flat_lengths = np.concatenate([list(s) for s in found]), np.concatenate([list(n) for n in lengths])
    varies = flat_scores.std() > 0 and flat_lengths.std() > 0
    return Quality(
        pairs=len(d),
        accuracy=float(right.mean()),
        nll=float(np.logaddexp(0, -d).mean()),
        calibration_error=float(sum(gaps)),
        length_correlation=float(np.corrcoef(flat_scores, flat_lengths)[0, 1]) if varies else 0.0,
        shorter=float(right[short].mean()) if short.any() else None,
    )


def bucket(length: int) -> int:
    """Return a length rounded up, so that few programs compile."""
    return -(-length // PROMPT_BUCKET) * PROMPT_BUCKET
