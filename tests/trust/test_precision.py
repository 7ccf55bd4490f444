"""The share of right labels from few reviews: simulated reviewers whose truth is known."""

import numpy as np
import pytest

from lmsi_jax.trust.precision import Label, certified, evidence, precision
from lmsi_jax.trust.reviewers import corrected
from lmsi_jax.trust.reviews import BANDS, band_of, is_doubled, review_order

SIZES, SHARES_RIGHT = (410, 361, 429), (0.33, 0.76, 0.956)  # of the bands of 1,200 labels


def population(rng, hint):
    """(band, prediction, truth) of 1,200 labels; with `hint` the prediction is right in 95%, else it says nothing."""
    rows = []
    for band, (size, share) in enumerate(zip(SIZES, SHARES_RIGHT, strict=True)):
        truth = np.arange(size) < round(size * share)
        guess = np.where(rng.random(size) < 0.95, truth, ~truth) if hint else rng.random(size) < 0.5
        rows += list(zip([band] * size, guess.astype(float), truth, strict=True))
    return rows


def in_review_order(rows, rng):
    ids = {str(i): row for i, row in enumerate(rows)}
    shares = {id: (0.2, 0.4, 0.8)[row[0]] for id, row in ids.items()}
    return [ids[id] for id in review_order(shares, int(rng.integers(2**31)))]


@pytest.mark.parametrize(("hint", "reviews", "width"), [(False, 100, 0.075), (False, 200, 0.050), (True, 100, 0.046)])
def test_the_interval_covers_and_the_estimate_is_unbiased(hint, reviews, width):
    """Catches: strata that are weighted by their reviews, a certain interval where no error was seen, an unused prediction."""
    rng = np.random.default_rng(0)
    rows = population(rng, hint)
    true, draws = np.mean([truth for _, _, truth in rows]), 100
    values, covered, halves = [], 0, []
    for _ in range(draws):
        order = in_review_order(rows, rng)
        labels = [
            Label(band, guess, {"ann": bool(truth)} if n < reviews else {}) for n, (band, guess, truth) in enumerate(order)
        ]
        found = precision(labels)
        values.append(found.value)
        covered += found.low <= true <= found.high
        halves.append((found.high - found.low) / 2)
    assert covered / draws >= 0.89 and np.mean(halves) <= width
    assert abs(np.mean(values) - true) < 0.002 + 2.6 * np.std(values) / draws**0.5


def test_few_reviews_and_all_reviews():
    """Catches: a band without a review that is left out, an interval when nothing is left to review, a guess before any."""
    assert precision([Label(0, 1.0, {}), Label(1, 0.0, {})]) is None
    one = precision([Label(0, 0.0, {"ann": True})] + [Label(0, 0.0, {})] * 20 + [Label(2, 0.0, {})] * 50)
    assert one.size == 21 and one.reviewed == 1 and one.high - one.low > 0.5, "nothing is known of the other band"
    everything = precision([Label(n % 3, 0.5, {"ann": n % 4 > 0}) for n in range(120)])
    assert everything.value == pytest.approx(0.75) and everything.high - everything.low < 1e-6
    two = precision([Label(0, 0.0, {"ann": True, "bob": False})])
    assert two.value == 0.5, "two reviewers who disagree"


def test_the_certificate_is_soon_reached_and_seldom_wrong():
    """Catches: a capital that grows under the hypothesis, sampling with replacement, a look that was not allowed for."""
    rng, size = np.random.default_rng(0), 429
    needed = []
    for _ in range(100):
        verdicts = (rng.permutation(size) < 410).tolist()
        needed.append(next(n for n in range(10, size + 1, 5) if certified(verdicts[:n], size, 0.85)))
    assert np.median(needed) <= 75, np.median(needed)
    null = [evidence((rng.permutation(size) < 364).tolist(), size, 0.85) >= 20 for _ in range(400)]
    assert np.mean(null) <= 0.07, "364 of 429 is below .85; the whole sequence is looked at"
    assert certified([True] * 20, 20, 0.95) and not certified([True] * 19 + [False], 20, 0.95)
    assert not certified([False] * 5, 10, 0.6), "nothing that follows can help"
    assert evidence([False] * 27 + [True] * 63, 90, 0.7) < 2, "exactly seven in ten, which 90 * 0.7 is not quite"


@pytest.mark.parametrize(("rates", "reviews"), [((0.05, 0.10), 200), ((0.0, 0.0), 200)])
def test_errors_of_reviewers_are_corrected(rates, reviews):
    """Catches: a correction that trusts one reviewer, or an interval that ignores that error rates are estimated."""
    rng = np.random.default_rng(1)
    rows = population(rng, hint=False)
    true, covered, values, naive, draws = np.mean([row[2] for row in rows]), 0, [], [], 40
    for _ in range(draws):
        labels = []
        for n, (band, guess, truth) in enumerate(in_review_order(rows, rng)):
            who = ("ann", "bob") if rng.random() < 0.15 else (("ann", "bob")[n % 2],)
            error = dict(zip(("ann", "bob"), rates, strict=True))
            verdicts = {name: bool(truth) ^ bool(rng.random() < error[name]) for name in who} if n < reviews else {}
            labels.append(Label(band, guess, verdicts))
        found = corrected(labels, draws=100)
        covered += found.precision.low <= true <= found.precision.high
        values.append(found.precision.value)
        naive.append(precision(labels).value)
    assert covered / draws >= 0.85, "93% within the error of 40 draws"
    assert abs(np.mean(values) - true) < 0.02
    if any(rates):
        assert abs(np.mean(values) - true) < abs(np.mean(naive) - true)
    assert corrected([Label(0, 0.0, {"ann": True})]) is None


def test_the_order_is_seeded_and_stratified():
    """Catches: a queue that begins with one band, or is another one after a restart."""
    shares = {f"q{n}": n / 400 for n in range(1, 401)}
    order = review_order(shares, 3)
    assert sorted(order) == sorted(shares) and order == review_order(dict(reversed(shares.items())), 3) != review_order(
        shares, 4
    )
    for n in (8, 40, 100):
        counts = np.bincount([band_of(shares[id]) for id in order[:n]], minlength=len(BANDS) + 1)
        assert list(counts) == pytest.approx([n / 4, n / 4, n / 2], abs=1.5)
    doubled = [is_doubled(id, 3) for id in shares]
    assert 0.10 < np.mean(doubled) < 0.20
