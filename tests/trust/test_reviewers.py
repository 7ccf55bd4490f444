"""How far reviewers agree, against the libraries of the field."""

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lmsi_jax.trust.reviewers import agreement

WORDS = {"r": "right", "w": "wrong", "u": "unclear"}
CASES = [  # verdicts of three reviewers, "-" for none; AC1 as irrCAC 0.4.4 gives it
    (
        "rrr rrr rrr rrr uuw rrr rrr uuu uuu rrr www rrr rrr rrr rru uwr rrr rrr rrw rrr rrr rrr rur uuu rur "
        "rrr rru www rrr rru ",
        0.756485755212478,
    ),
    (
        "rrr www rru uuu uuu rrr uuu uuu uuu uuu rrr uuu www rrr uur uuu rrr uuu rrr rrr uuu rrr wrw rrr rrr "
        "rrr www uru uuu www rru rrr uuu uuu uuu uuw www rrr www rrr www wrr rrr rru rrr rrr uuu urr www rrr ",
        0.824663939216832,
    ),
    (
        "www -rr uuu -r- rrr uuw rrr uuu www uu- --w -rr u-- rww rru -uu www uuu rr- rrr rrr rr- rrr rrr r-r "
        "rr- rr- r-w -rr -wr rrr uuu -rr rrw www rru -rr www rrr rur rwr rrr uu- uww wwu r-- uuw -rr rrr www "
        "rr- -r- rrr r-r -rr -rr uuu uww rrr wuu rr- -rw -wu rrw www -ru rrr rrr -ur rr- rrr rrr www rrr --w "
        "--r r-r www rrr rr- ",
        0.72078383130822,
    ),
]


def items(text, names="abc"):
    return [{n: WORDS[v] for n, v in zip("abc", each, strict=True) if v != "-" and n in names} for each in text.split()]


@pytest.mark.parametrize(("text", "ac1"), CASES)
def test_agreement_is_that_of_the_libraries(text, ac1):
    """Catches: a chance agreement of other items, missing verdicts that count as a category."""
    found = agreement(items(text))
    assert found.ac1 == pytest.approx(ac1, abs=1e-12)
    doubled = [item for item in items(text) if len(item) > 1]
    codes = {"right": 0, "unclear": 1, "wrong": 2}
    table = [[codes[item[name]] if name in item else np.nan for item in doubled] for name in "abc"]
    alpha = krippendorff.alpha(reliability_data=table, level_of_measurement="nominal")
    assert found.alpha == pytest.approx(alpha, abs=1e-12) and found.kappa is None and found.items == len(doubled)
    pairs = [item for item in items(text, "ab") if len(item) == 2]
    kappa = cohen_kappa_score(*([item[name] for item in pairs] for name in "ab"))
    assert agreement(pairs).kappa == pytest.approx(kappa, abs=1e-12)


def test_krippendorffs_published_example():
    """Catches: another coefficient than the one that is published (Krippendorff 2011: .743 for these nominal data)."""
    published = {
        "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    units = [{n: str(v[i]) for n, v in published.items() if v[i] is not None} for i in range(12)]
    assert agreement(units).alpha == pytest.approx(0.743, abs=5e-4)


def test_agreement_where_it_is_undefined():
    """Catches: a division by zero when all say the same, or when nobody reviewed the same item."""
    assert agreement([{"a": "right"}, {"b": "right"}]) is None
    same = agreement([{"a": "right", "b": "right"}] * 5)
    assert (same.raw, same.kappa, same.alpha, same.ac1) == (1.0, None, None, None)
    rare = agreement([{"a": "right", "b": "right"}] * 95 + [{"a": "right", "b": "wrong"}] * 5)
    assert rare.raw == 0.95 and rare.kappa == pytest.approx(0, abs=1e-9) and rare.ac1 > 0.94, "kappa falls at high prevalence"
