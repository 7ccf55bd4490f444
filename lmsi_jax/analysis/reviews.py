"""What human reviews say about the labels of a group: their precision, a certificate, and how far reviewers agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmsi_jax.analysis.validity import GENERAL, read_steps
from lmsi_jax.core.files import read_json
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_growing, read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.trust.precision import LEVEL, Label, Precision, certified, precision
from lmsi_jax.trust.reviewers import Agreement, Errors, agreement, corrected
from lmsi_jax.trust.reviews import BANDS, Reviews, band_of, review_order

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)  # that a certificate may name


@dataclass(frozen=True)
class Audit:
    """The human reviews of the labels of one group."""

    reviewers: dict[str, int]  # labels reviewed by each
    unclear: int  # labels that a reviewer calls unclear, which count as not right
    outdated: int  # labels with reviews of an answer that the vote no longer gives
    labels: int  # of the group
    precision: Precision | None  # None where outdated reviews leave no random sample
    corrected: Errors | None  # for the errors of reviewers, when some labels have two reviews
    majority: int  # labels with a vote share above the last of BANDS
    certificate: float | None  # the largest of THRESHOLDS that their share of right labels exceeds, certain at 1 - LEVEL
    agreement: Agreement | None


def run_seed(folder: RunFolder) -> int:
    """Return the seed of a run, which also draws the order of its reviews."""
    return int(read_json(folder.config).get("seed", 0)) if folder.config.exists() else 0


def audit(folder: RunFolder, group: str) -> Audit | None:
    """Return what the reviews of a group say, or None without any review of its labels."""
    if not folder.reviews(group).exists():
        return None
    reviews = Reviews.of(read_growing(folder.reviews(group)), str(folder.reviews(group)))
    votes = {row["id"]: row for row in read_jsonl(folder.votes(group)) if row["answer"] is not None}
    given = {id: reviews.labels.get((id, row["answer"]), {}) for id, row in votes.items()}
    if not any(given.values()):
        return None
    outdated = len({id for id, answer in reviews.labels if id in votes and not given[id]})
    order = review_order({id: row["confidence"] for id, row in votes.items()}, run_seed(folder))
    steps = read_steps(folder, group)
    decided = {id: {name: word for name, word in each.items() if word != "unclear"} for id, each in given.items()}
    majority = [id for id in order if band_of(votes[id]["confidence"]) == len(BANDS)]
    return Audit(
        reviewers={
            name: sum(name in each for each in given.values()) for name in sorted({n for e in given.values() for n in e})
        },
        unclear=sum("unclear" in each.values() for each in given.values()),
        outdated=outdated,
        labels=len(votes),
        precision=None if outdated else precision(_labels(votes, given, steps)),
        corrected=None if outdated else corrected(_labels(votes, decided, steps)),
        majority=len(majority),
        certificate=None if outdated else _certificate([given[id] for id in majority]),
        agreement=agreement([each for each in given.values() if each]),
    )


def _labels(
    votes: Mapping[str, Record], given: Mapping[str, Mapping[str, str]], steps: Mapping[str, Mapping[int, Record]]
) -> list[Label]:
    """Return the labels of a group. The share of valid paths among those that agree predicts whether a label is right."""
    labels = []
    for id, vote in votes.items():
        checked = [steps[id][path] for path in vote["kept"] if path in steps.get(id, {})]
        valid = [not any(failure["check"] in GENERAL for failure in row["failures"]) for row in checked]
        predicted = sum(valid) / len(valid) if valid else vote["confidence"]
        verdicts = {name: verdict == "right" for name, verdict in given[id].items()}
        labels.append(Label(band_of(vote["confidence"]), predicted, verdicts))
    return labels


def _certificate(given: Sequence[Mapping[str, str]]) -> float | None:
    """Return the largest threshold that the share of right labels exceeds, from reviews in the order of the queue."""
    verdicts = []
    for each in given:
        if not each:
            break
        verdicts.append(all(verdict == "right" for verdict in each.values()))
    passed = [threshold for threshold in THRESHOLDS if certified(verdicts, len(given), threshold)]
    return max(passed, default=None)


def audit_rows(found: Audit) -> list[tuple[str, str]]:
    """Return what an audit says, as names and values in words."""
    agreed, reviewed = found.agreement, ", ".join(f"{name} {count}" for name, count in found.reviewers.items())
    rows = [("Labels reviewed", f"{reviewed}; {found.unclear} unclear, counted as not right")]
    if found.precision is None:
        outdated = f"{found.outdated} labels were reviewed before a new vote gave another answer; the rest is no random sample"
        return [*rows, ("Right labels", f"no estimate: {outdated}")]
    estimate = found.precision
    part = "all" if estimate.size == found.labels else f"those with a vote share in a reviewed band, {estimate.size:,} of"
    rows.append((f"Right labels, of {part} {found.labels:,}", f"{_share(estimate)} from {estimate.reviewed:,} reviewed"))
    if found.corrected:
        errors = ", ".join(f"{name} {rate:.1%}" for name, rate in found.corrected.rates.items())
        rows.append(("Corrected for the errors of reviewers", f"{_share(found.corrected.precision)}; errors: {errors}"))
    share = f"{BANDS[-1]:.0%}"
    certificate = "nothing yet" if found.certificate is None else f"more than {found.certificate:.0%} are right"
    rows.append((f"Certain at {1 - LEVEL:.0%}, of the {found.majority:,} labels with a vote share above {share}", certificate))
    if agreed:
        values = {"kappa": agreed.kappa, "alpha": agreed.alpha, "AC1": agreed.ac1}
        beyond = ", ".join(f"{name} {value:.2f}" for name, value in values.items() if value is not None)
        rows.append(
            (f"Agreement of reviewers on {agreed.items:,} labels", f"{agreed.raw:.1%}" + (f" ({beyond})" if beyond else ""))
        )
    return rows


def _share(estimate: Precision) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def show_audit(found: Audit) -> None:
    """Print what an audit says."""
    for name, value in audit_rows(found):
        console.print(f"{name}: {value}", soft_wrap=True)
