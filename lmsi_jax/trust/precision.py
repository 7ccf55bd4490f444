"""The share of right labels, estimated from few human reviews of them.

The labels form bands of vote share. Within a band they are reviewed in random order, so that the reviewed ones are a random
sample of the band whenever the reviewing stops.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Z = 1.959964  # of a 95% interval
BETS = (0.5, 0.7, 0.9)  # each bet of the certificate expects the share t + b (1 - t) for the threshold t
LEVEL = 0.05  # probability that a certificate is wrong, at most


class Label(NamedTuple):
    """A voted label. `predicted` is a guess, from 0 to 1, of whether it is right, made without reading a review.

    `verdicts` are by reviewer: True for right; False for wrong, or for unclear, since nobody has confirmed it. They are empty
    for a label that is not reviewed.
    """

    band: int
    predicted: float
    verdicts: Mapping[str, bool]


class Precision(NamedTuple):
    """The estimated share of right labels, from 0 to 1, with its 95% interval.

    It is that of `size` labels, of which `reviewed` are reviewed: the labels of the bands that have a review.
    """

    value: float
    low: float
    high: float
    reviewed: int
    size: int


class _Band(NamedTuple):
    predicted: np.ndarray  # of all labels
    reviewed: np.ndarray  # (n,) bool over the same
    right: np.ndarray  # of the reviewed labels: the mean verdict


def precision(labels: Sequence[Label]) -> Precision | None:
    """Return the estimated share of right labels in the bands that have a review; None before the first review.

    The value is the prediction-powered estimate in each band (Angelopoulos et al. 2023, PPI++, arXiv 2311.01453), weighted by
    the sizes of the bands: the mean prediction of all labels, corrected by the mean error of the prediction where it is
    reviewed. The interval adds half a right and half a wrong label to each band (Jeffreys), so that a band without an error
    is not taken as certain, and it has the correction for a finite population.
    """
    bands = _bands(labels)
    if not bands:
        return None
    size, power = sum(len(band.predicted) for band in bands), _power(bands)
    value = centre = variance = 0.0
    for predicted, reviewed, right in bands:
        share, n = len(predicted) / size, len(right)
        errors = right - power * predicted[reviewed]
        value += share * float(power * predicted.mean() + errors.mean())
        points = np.concatenate([errors, np.array([1.0, 0.0]) - power * predicted.mean()])
        weights = np.concatenate([np.ones(n), [0.5, 0.5]])
        smoothed = float(np.average(points, weights=weights))
        spread = float(np.average((points - smoothed) ** 2, weights=weights))
        rest = power * predicted[~reviewed].sum() + (len(predicted) - n) * smoothed
        centre += float(right.sum() + rest) / size
        variance += share**2 * (1 - n / len(predicted)) * spread / n
    half = Z * math.sqrt(variance)
    reviewed_labels = sum(len(right) for _, _, right in bands)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Precision(min(max(value, 0.0), 1.0), low, high, reviewed_labels, size)


def _bands(labels: Sequence[Label]) -> list[_Band]:
    """Return the bands that have a review, in order."""
    result = []
    for band in sorted({label.band for label in labels if label.verdicts}):
        members = [label for label in labels if label.band == band]
        reviewed = np.array([bool(label.verdicts) for label in members])
        right = np.array([float(np.mean(list(label.verdicts.values()))) for label in members if label.verdicts])
        result.append(_Band(np.array([float(label.predicted) for label in members]), reviewed, right))
    return result


def _power(bands: Sequence[_Band]) -> float:
    """Return how much the predictions are trusted, from 0 to 1: the slope of verdicts on predictions within the bands."""
    both = spread = 0.0
    for predicted, reviewed, right in bands:
        guesses = predicted[reviewed] - predicted[reviewed].mean()
        both += float(guesses @ (right - right.mean()))
        spread += float(guesses @ guesses)
    return min(max(both / spread, 0.0), 1.0) if spread else 0.0


def evidence(verdicts: Sequence[bool], size: int, threshold: float) -> float:
    """Return the evidence that more than `threshold` of `size` labels are right, after verdicts in random order.

    It is the largest capital of a gambler who bets on each next verdict at odds that would be fair if at most `threshold` of
    the labels were right (Waudby-Smith and Ramdas 2020, arXiv 2010.09686, without replacement). Under that hypothesis it
    exceeds 1 / p with probability p at most, whenever one looks.
    """
    capital, largest, right = np.ones(len(BETS)), 1.0, 0
    hoped = threshold + (1 - threshold) * np.array(BETS)
    for done, verdict in enumerate(verdicts):
        left = round(size * threshold - right, 9)  # the most right labels that the hypothesis leaves
        fair = left / (size - done)
        if fair < 0 or (fair == 0 and verdict):
            return math.inf  # more labels are right than the hypothesis allows
        if fair == 0:
            continue
        if fair >= 1:
            return largest  # the hypothesis holds, whatever follows
        stake = np.where(hoped > fair, (hoped - fair) / (fair * (1 - fair)), 0.0)
        capital = capital * (1 + stake * (float(verdict) - fair))
        largest, right = max(largest, float(capital.mean())), right + bool(verdict)
    return largest


def certified(verdicts: Sequence[bool], size: int, threshold: float) -> bool:
    """Return whether more than `threshold` of `size` labels are right, with a probability of error of `LEVEL` at most."""
    return evidence(verdicts, size, threshold) >= 1 / LEVEL
