"""Frequencies of the rotary position embedding."""

import math

import numpy as np

from lmsi_jax.model.config import ModelConfig, RopeScaling


def frequencies(config: ModelConfig, window: int) -> np.ndarray:
    """Return the rotation per position, in radians, of each pair of dimensions in a layer with this window.

    The shape is (head_width / 2,), float32. Sliding-window layers (window > 0) use `rope_base_local` if it is set.
    """
    base = (window and config.rope_base_local) or config.rope_base
    half = config.head_width // 2
    plain = base ** (-np.arange(half, dtype=np.float64) / half)
    local = bool(window and config.rope_base_local)
    return (plain if local else _scaled(plain, config.rope_scaling)).astype(np.float32)


def _scaled(frequency: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """`linear`: divide all frequencies by `factor`. `llama3`: divide slow ones, keep fast ones, and interpolate in between."""
    if scaling.kind == "none":
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    rotations = scaling.original_context * frequency / (2 * math.pi)  # within the original context
    fast = (rotations - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    fast = np.clip(fast, 0.0, 1.0)
    return frequency * (fast + (1 - fast) / scaling.factor)
