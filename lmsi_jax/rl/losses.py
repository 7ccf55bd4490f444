"""Losses of policy gradients, token by token, and their aggregation.

Arrays are (rows, tokens). `segments` tells which sequence of its row a token belongs to: 0 is no sequence (padding, prompts,
paths left out), and a row may have several sequences, as packed rows do. `logprobs` are those of the policy, with a gradient;
`old_logprobs` are those that the tokens were sampled with. The ratio of a token is exp(logprobs - old_logprobs).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lmsi_jax.rl.config import Aggregation, Clip

Tokens = Float[Array, "n t"]
Segments = Int[Array, "n t"]


CLIP, GSPO_CLIP = Clip(), Clip(3e-4, 4e-4)


def reinforce(logprobs: Tokens, old_logprobs: Tokens, advantages: Tokens, segments: Segments, clip: Clip = CLIP) -> Tokens:
    """Return -A log p (Williams 1992). Right only for paths that the present policy sampled; it ignores `old_logprobs`."""
    return -advantages * logprobs


def ppo(logprobs: Tokens, old_logprobs: Tokens, advantages: Tokens, segments: Segments, clip: Clip = CLIP) -> Tokens:
    """Return -min(ratio A, clip(ratio, 1 - low, 1 + high) A) (Schulman et al. 2017), with the cap of `clip.dual` if it is set.

    With advantages of groups it is the loss of GRPO and, with an asymmetric clip and the aggregation "token", of DAPO.
    """
    return _clipped(jnp.exp(logprobs - old_logprobs), advantages, clip)


def gspo(logprobs: Tokens, old_logprobs: Tokens, advantages: Tokens, segments: Segments, clip: Clip = GSPO_CLIP) -> Tokens:
    """Return PPO's loss with the ratio of the whole sequence, exp(mean log-ratio) (Zheng et al. 2025, arXiv 2507.18071).

    Each token has the loss of its sequence. Use the aggregation "sequence".
    """
    return _clipped(jnp.exp(sequence_mean(logprobs - old_logprobs, segments)), advantages, clip)


def cispo(logprobs: Tokens, old_logprobs: Tokens, advantages: Tokens, segments: Segments, clip: Clip = CLIP) -> Tokens:
    """Return -min(ratio, 1 + high) A log p, without a gradient of the ratio (MiniMax 2025, arXiv 2506.13585)."""
    ratio = jnp.minimum(jnp.exp(logprobs - old_logprobs), 1 + clip.high)
    return -jax.lax.stop_gradient(ratio) * advantages * logprobs


PolicyLoss = Callable[..., Tokens]
LOSSES: dict[str, PolicyLoss] = {"reinforce": reinforce, "ppo": ppo, "gspo": gspo, "cispo": cispo}


def _clipped(ratio: Tokens, advantages: Tokens, clip: Clip) -> Tokens:
    loss = -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip.low, 1 + clip.high) * advantages)
    return jnp.where(advantages < 0, jnp.minimum(loss, -clip.dual * advantages), loss) if clip.dual else loss


def is_clipped(logprobs: Tokens, old_logprobs: Tokens, advantages: Tokens, clip: Clip) -> Tokens:
    """Return 1 for tokens whose ratio is outside the range on the side where the loss has no gradient, else 0."""
    ratio = jnp.exp(logprobs - old_logprobs)
    beyond = jnp.where(advantages > 0, ratio > 1 + clip.high, (ratio < 1 - clip.low) & (advantages < 0))
    return beyond.astype(logprobs.dtype)


def sequence_mean(values: Tokens, segments: Segments) -> Tokens:
    """Return for each token the mean over the tokens of its sequence, and 0 outside of sequences."""
    same = (segments[:, :, None] == segments[:, None, :]) & (segments[:, :, None] > 0)
    same = same.astype(values.dtype)
    return jnp.einsum("nts,ns->nt", same, values) / jnp.maximum(same.sum(axis=-1), 1)


def value_loss(values: Tokens, old_values: Tokens, returns: Tokens, clip: float = 0.2) -> Tokens:
    """Return 0.5 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2); c = 0 does not clip (Schulman et al. 2017)."""
    squared = (values - returns) ** 2
    if clip:
        squared = jnp.maximum(squared, (jnp.clip(values, old_values - clip, old_values + clip) - returns) ** 2)
    return 0.5 * squared


def weights(segments: np.ndarray, how: Aggregation, length: int) -> np.ndarray:
    """Return the weight of each token of a whole batch, on the host, so that loss = sum(weight x loss) / number of tokens.

    "token": each token counts alike (DAPO). "sequence": each sequence counts alike (GRPO, GSPO). "constant": the sum over
    tokens is divided by sequences x `length`, a constant (Dr. GRPO). Since the weights come from the batch, the loss and its
    gradient do not depend on how the batch is divided into microbatches or over devices.
    """
    counts = [np.bincount(row, minlength=1) for row in segments]
    lengths = np.stack([np.where(row > 0, count[row], 1) for row, count in zip(segments, counts, strict=True)])
    total, sequences = (segments > 0).sum(), sum(int((count[1:] > 0).sum()) for count in counts)
    inside = (segments > 0).astype(np.float64)
    if how == "token":
        return inside
    if how == "sequence":
        return inside * total / (lengths * max(sequences, 1))
    return inside * total / (max(sequences, 1) * length)


def aggregate(losses: Tokens, segments: np.ndarray, how: Aggregation, length: int) -> Float[Array, ""]:
    """Return the loss of a whole batch from those of its tokens; see `weights`."""
    weighted = weights(segments, how, length)
    return jnp.sum(losses * jnp.asarray(weighted, losses.dtype)) / max((segments > 0).sum(), 1)
