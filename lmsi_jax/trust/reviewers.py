"""Several reviewers: how far they agree, and how often each of them errs.

Kappa and alpha fall when nearly all labels are right, however well reviewers agree; so the raw agreement and Gwet's AC1, which
does not, are given beside them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lmsi_jax.trust.precision import Label, Precision

PRIOR_ERRORS = (0.5, 4.5)  # pseudo-verdicts, wrong and right, of each reviewer
PRIOR_LABELS = 0.5  # pseudo-labels, right and wrong, of each band
ITERATIONS = 60


class Agreement(NamedTuple):
    """The agreement of reviewers on the items that at least two of them have reviewed. Undefined values are None."""

    items: int
    raw: float  # share of pairs of verdicts on one item that are equal
    kappa: float | None  # Cohen's, for two reviewers
    alpha: float | None  # Krippendorff's, nominal
    ac1: float | None  # Gwet's


def agreement(items: Sequence[Mapping[str, str]]) -> Agreement | None:
    """Return the agreement of reviewers; `items` are verdicts by reviewer. None without an item that has two verdicts.

    Kappa and alpha need the extra "review"; without it they are None.
    """
    doubled = [item for item in items if len(item) > 1]
    if not doubled:
        return None
    verdicts = sorted({verdict for item in items for verdict in item.values()})
    pairs = [_pairs(item) for item in doubled]
    raw = sum(equal / total for equal, total in pairs) / len(pairs)
    kappa, alpha = _beyond_chance(doubled)
    return Agreement(len(doubled), raw, kappa, alpha, _ac1(items, verdicts, raw))


def _beyond_chance(doubled: Sequence[Mapping[str, str]]) -> tuple[float | None, float | None]:
    """Return Cohen's kappa, for two reviewers, and Krippendorff's alpha; None where undefined or not installed."""
    verdicts = sorted({verdict for item in doubled for verdict in item.values()})
    reviewers = sorted({name for item in doubled for name in item})
    try:
        import krippendorff
        from sklearn.metrics import cohen_kappa_score
    except ImportError:
        return None, None
    if len(verdicts) < 2:
        return None, None
    codes = {verdict: float(code) for code, verdict in enumerate(verdicts)}
    table = [[codes[item[name]] if name in item else np.nan for item in doubled] for name in reviewers]
    alpha = float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))
    if len(reviewers) != 2:
        return None, alpha
    return float(cohen_kappa_score(*([item[name] for item in doubled] for name in reviewers))), alpha


def _pairs(item: Mapping[str, str]) -> tuple[int, int]:
    """Return how many pairs of verdicts on an item are equal, and how many there are."""
    verdicts = list(item.values())
    equal = sum(a == b for i, a in enumerate(verdicts) for b in verdicts[:i])
    return equal, len(verdicts) * (len(verdicts) - 1) // 2


def _ac1(items: Sequence[Mapping[str, str]], verdicts: Sequence[str], raw: float) -> float | None:
    """Return Gwet's AC1 (2008): agreement beyond chance, where chance is to agree on items that are hard to judge."""
    if len(verdicts) < 2:
        return None
    shares = [np.mean([list(item.values()).count(verdict) / len(item) for item in items]) for verdict in verdicts]
    chance = sum(share * (1 - share) for share in shares) / (len(verdicts) - 1)
    return float((raw - chance) / (1 - chance))


class Errors(NamedTuple):
    """The share of right labels, corrected for the errors of reviewers, and the estimated error rate of each."""

    precision: Precision
    rates: dict[str, float]


def corrected(labels: Sequence[Label], draws: int = 400, seed: int = 0) -> Errors | None:
    """Return the share of right labels, corrected for reviewers who err; None unless two reviewers share some labels.

    Verdicts that are neither right nor wrong must be left out of `labels`. Shares and rates are from 0 to 1; since the model
    cannot tell a rate above one half from one below, rates are at most 0.49.
    Each reviewer errs on right and on wrong labels with the same unknown probability, independently (Dawid and Skene 1979, with
    one rate each). The rates show in the labels with two verdicts, and in bands where nearly all labels are right. Estimates
    are by expectation maximisation; the interval is that of a bootstrap over the labels of each band. It covers from about 200
    reviewed labels on.
    """
    reviewed = [label for label in labels if label.verdicts]
    if not any(len(label.verdicts) > 1 for label in reviewed):
        return None
    reviewers = sorted({name for label in reviewed for name in label.verdicts})
    bands = sorted({label.band for label in reviewed})
    sizes = np.array([sum(label.band == band for label in labels) for band in bands], float)
    keys = [(label.band, tuple(sorted(label.verdicts.items()))) for label in reviewed]
    cells = sorted(set(keys))
    code = np.array([cells.index(key) for key in keys])
    band = np.array([bands.index(key[0]) for key in keys])
    rng = np.random.default_rng(seed)
    groups = [code[band == h] for h in range(len(bands))]
    samples = [np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(draws)]
    counts = np.array([np.bincount(each, minlength=len(cells)) for each in (code, *samples)], float)
    verdicts = np.array([[dict(cell[1]).get(name, np.nan) for name in reviewers] for cell in cells], float)
    shares, rates = _maximise(counts, np.array([bands.index(cell[0]) for cell in cells]), verdicts)
    values = shares @ (sizes / sizes.sum())
    low, high = np.percentile(values[1:], (2.5, 97.5))
    estimate = Precision(float(values[0]), float(low), float(high), len(reviewed), int(sizes.sum()))
    return Errors(estimate, dict(zip(reviewers, map(float, rates[0]), strict=True)))


def _maximise(counts: np.ndarray, band: np.ndarray, verdicts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (samples, bands) shares of right labels and (samples, reviewers) error rates.

    `counts` is (samples, cells): how many labels have the verdicts of each cell. `verdicts` is (cells, reviewers), with NaN
    where a reviewer gave none, and `band` is (cells,).
    """
    given = ~np.isnan(verdicts)
    says_right, says_wrong = given & (verdicts == 1), given & (verdicts == 0)
    in_band = np.eye(int(band.max()) + 1)[band]  # (cells, bands)
    shares = np.full((len(counts), in_band.shape[1]), 0.7)
    rates = np.full((len(counts), verdicts.shape[1]), PRIOR_ERRORS[0] / sum(PRIOR_ERRORS))
    wrong, right = PRIOR_ERRORS
    for _ in range(ITERATIONS):
        errs, hits = np.log(rates).T, np.log1p(-rates).T  # (reviewers, samples)
        if_right = says_right @ hits + says_wrong @ errs + np.log(shares[:, band]).T
        if_wrong = says_right @ errs + says_wrong @ hits + np.log1p(-shares[:, band]).T
        is_right = 1 / (1 + np.exp(np.clip(if_wrong - if_right, -50, 50)))  # (cells, samples)
        of_right, of_wrong = counts * is_right.T, counts * (1 - is_right.T)
        shares = (of_right @ in_band + PRIOR_LABELS) / (counts @ in_band + 2 * PRIOR_LABELS)
        errors = of_right @ says_wrong + of_wrong @ says_right
        rates = np.minimum((errors + wrong) / (counts @ given + wrong + right), 0.49)
    return shares, rates
