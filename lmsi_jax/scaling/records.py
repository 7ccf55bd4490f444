"""What `lmsi scaling fit` writes: one record with the law, its constants and intervals, how good it is, and what to doubt."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lmsi_jax.core.errors import UserError, unknown
from lmsi_jax.core.records import Record, numbered_jsonl
from lmsi_jax.scaling import samples
from lmsi_jax.scaling.fitting import Fit, fit, objective
from lmsi_jax.scaling.frontier import Frontier, envelope, exponent_intervals, isoflop
from lmsi_jax.scaling.laws import LAWS, Law
from lmsi_jax.scaling.points import Count, Points, read_points
from lmsi_jax.scaling.published import PUBLISHED, published_count
from lmsi_jax.scaling.uncertainty import bootstrap, forecast, interval, intervals, largest_runs, outliers, warnings

FRONTIERS: dict[str, Callable[[Points], Frontier]] = {"chinchilla_envelope": envelope, "chinchilla_isoflop": isoflop}
SAMPLES = ("coverage", "vote")
NAMES = (*LAWS, *FRONTIERS, *SAMPLES)
MOST_PATHS = 10**6  # of a question
KEPT = 200  # resampled fits that the record keeps, for the intervals of plans
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def fit_record(name: str, file: str, count: Count, draws: int, above: float | None = None) -> Record:
    """Return the record of a fit of the law `name` to the rows of a file.

    `draws` is the number of resampled runs for the intervals; `above` the compute whose larger points are predicted from the
    smaller ones, by default that of the largest run but one. Raises UserError for an unknown law or rows that cannot bear it.
    """
    if name in SAMPLES:
        if count != "total":
            raise UserError(f"{name} has no parameters, so --count would change nothing; leave it out.")
        return _samples_record(name, file, draws)
    if name in FRONTIERS:
        points = read_points(file, ("params", "tokens"), count)
        return _frontier_record(name, points, draws)
    if name not in LAWS:
        raise unknown("law", name, NAMES)
    points = read_points(file, LAWS[name].fields, count)
    fitted = fit(LAWS[name], points)
    record = _law_record(fitted, points, draws, above)
    odd = outliers(fitted, points)
    if odd.any():
        lines = [f"loss {points.columns['loss'][i]:g} ({points.runs[i]})" for i in np.flatnonzero(odd)]
        record["without_outliers"] = {"left_out": lines, **_without(fitted.law, points.take(~odd), draws)}
    return record


def _without(law: Law, rest: Points, draws: int) -> Record:
    try:
        return _law_record(fit(law, rest), rest, draws, None)
    except UserError as error:
        return {"error": str(error)}


def _law_record(fitted: Fit, points: Points, draws: int, above: float | None) -> Record:
    law, fits = fitted.law, bootstrap(fitted, points, draws)
    limits = intervals(fits, lambda each: each.constants) if fits else {}
    relative = fitted.predict(points.columns) / points.columns["loss"] - 1
    logs = np.log(points.columns["loss"])
    spread = float(((logs - logs.mean()) ** 2).sum())
    unexplained = float(((logs - law.log_loss(fitted.theta, points.columns)) ** 2).sum())
    record: Record = {
        "law": law.name,
        "formula": law.formula,
        "points": len(points),
        "runs": len(set(points.runs)),
        **_accounts(points, law),
        "constants": {name: _with(value, limits.get(name)) for name, value in fitted.constants.items()},
        "objective": fitted.objective,
        "gradient_norm": fitted.gradient_norm,
        "theta": [each.theta.tolist() for each in (fitted, *fits[:KEPT])],
        "r_squared": 1 - unexplained / spread if spread else None,
        "mean_error": float(np.abs(relative).mean()),
        "largest_error": float(np.abs(relative).max()),
    }
    if law.exponents:
        of = lambda each: dict(zip("ab", law.exponents(each.theta), strict=True))  # noqa: E731
        bounds = intervals(fits, of) if fits else {}
        record["exponents"] = {name: _with(value, bounds.get(name)) for name, value in of(fitted).items()}
    others = {name: each for name, each in PUBLISHED.items() if each.law is law and published_count(name) == points.count}
    if others:
        record["published"] = {name: objective(law, each.theta, points.columns) for name, each in others.items()}
    record["extrapolation"] = _extrapolation(law, points, draws, above)
    record["warnings"] = warnings(fitted, points, limits)
    return record


def _extrapolation(law: Law, points: Points, draws: int, above: float | None) -> Record:
    """Return how well the smaller points predict the larger ones, or why that cannot be said."""
    try:
        return vars(forecast(law, points, largest_runs(points, above), min(draws, 200)))
    except UserError as error:
        if above is not None:
            raise
        return {"error": str(error)}


def _accounts(points: Points, law: Law | None = None) -> Record:
    """Name what is counted, since fits of other accounts are other fits."""
    accounts: Record = {}
    if law is None or "params" in law.fields:
        accounts["params"] = points.count
    if law is None or "flops" in law.fields or "tokens" in law.fields:
        accounts["compute"] = "flops of the rows" if "flops" in points.columns else f"6 N D, N {points.count}"
    return accounts


def _with(value: float, bounds: tuple[float, float] | None) -> Record:
    return {"value": value} if bounds is None else {"value": value, "low": bounds[0], "high": bounds[1]}


def _frontier_record(name: str, points: Points, draws: int) -> Record:
    frontier = FRONTIERS[name](points)
    bounds, failed = exponent_intervals(points, name.removeprefix("chinchilla_"), draws) if draws else ({}, 0)
    doubts = [f"No optimum at {reason}" for reason in frontier.refused]
    if failed == draws > 0:
        bounds = {}
        doubts.append("No resampled data set shows a frontier, so that there is no interval.")
    elif failed:
        doubts.append(
            f"{failed} of {draws} resampled data sets show no frontier. The intervals are without them, and too short."
        )
    thinned = frontier.optima[:: max(1, len(frontier.optima) // 50)]
    return {
        "law": name,
        "formula": "N_opt = G C^a, D_opt = H C^b",
        "points": len(points),
        "runs": len(set(points.runs)),
        **_accounts(points),
        "constants": {"G": {"value": frontier.params.coefficient}, "H": {"value": frontier.tokens.coefficient}},
        "exponents": {
            "a": _with(frontier.params.exponent, bounds.get("a")),
            "b": _with(frontier.tokens.exponent, bounds.get("b")),
        },
        "optima": [dict(zip(("flops", "params", "tokens", "loss"), row, strict=True)) for row in thinned],
        "warnings": doubts,
    }


def _samples_record(name: str, file: str, draws: int) -> Record:
    rows = list(numbered_jsonl(file))
    if name == "vote":
        return _vote_record([_answers(row, f"{file} line {line}") for line, row in rows], draws)
    counts = [_counts(row, f"{file} line {line}") for line, row in rows]
    n, c = np.array(counts, int).reshape(-1, 2).T
    beta, power = samples.fit_beta_coverage(n, c), _power_law(n, c)
    rng = np.random.default_rng(0)
    indices = [rng.integers(0, len(n), len(n)) for _ in range(min(draws, 100))]
    fits = [samples.fit_beta_coverage(n[index], c[index]) for index in indices if c[index].any()]
    return {
        "law": "coverage",
        "formula": "E[1 - (1 - p)^k], p = 0 with chance never, else Beta(alpha, beta)",
        "points": len(n),
        "constants": {key: _with(value, _over(fits, lambda f: vars(f)[key])) for key, value in vars(beta).items()},  # noqa: B023
        "power_law": {"formula": "exp(-a k^-b)", **power},
        "coverage": {str(k): _with(beta.at(k), _over(fits, lambda f: f.at(k))) for k in SIZES},  # noqa: B023
        "warnings": [],
    }


def _over(fits: list[samples.BetaCoverage], of: Callable[[samples.BetaCoverage], float]) -> tuple[float, float] | None:
    return interval([of(each) for each in fits]) if fits else None


def _power_law(n: np.ndarray, c: np.ndarray) -> Record:
    """Return the exponentiated power law and its coverage, or why it cannot be fitted."""
    try:
        power = samples.fit_power_coverage(n, c)
    except UserError as error:
        return {"error": str(error)}
    return {**vars(power), "coverage": {str(k): power.at(k) for k in SIZES}}


def _counts(row: Record, where: str) -> tuple[int, int]:
    """Return (samples, correct) of a row, which may also be a score with one flag a path in `right`."""
    if _flags(row.get("right")):
        return len(row["right"]), sum(row["right"])
    n, c = row.get("samples"), row.get("correct")
    if type(n) is int and type(c) is int and 0 <= c <= n and 0 < n <= MOST_PATHS:
        return n, c
    raise UserError(
        f"{where}: needs right, a list of true and false, or samples (at most {MOST_PATHS:,}) and correct, from 0 to samples."
    )


def _flags(value: Any) -> bool:
    """Return whether a value is a list of true and false that is not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(flag, bool) for flag in value)


def _answers(row: Record, where: str) -> samples.Answers:
    answers, right, valid = (row.get(name) for name in ("answers", "right", "valid"))
    if not isinstance(answers, list) or not isinstance(right, list) or not _flags(right) or len(answers) != len(right):
        raise UserError(f"{where}: needs answers, and right with true or false for each; lmsi evaluate writes such rows.")
    if valid is not None and (not isinstance(valid, list) or not _flags(valid) or len(valid) != len(answers)):
        raise UserError(f"{where}: valid must have one true or false for each of the {len(answers)} answers.")
    read = tuple(None if answer is None else str(answer) for answer in answers)
    accepted = frozenset(answer for answer, flag in zip(read, right, strict=True) if flag and answer is not None)
    return samples.Answers(read, accepted, None if valid is None else tuple(bool(flag) for flag in valid))


def _vote_record(questions: list[samples.Answers], draws: int) -> Record:
    rng = np.random.default_rng(0)
    law = samples.fit_vote(questions)
    most, rules = max(len(question.answers) for question in questions), ["majority"]
    rules += ["valid_first"] if all(question.valid for question in questions) else []
    table: dict[str, Any] = {}
    for rule in rules:
        table[rule] = {}
        for k in (most, 2 * most, 4 * most):
            shares = np.array(samples.vote_accuracy(law, questions, k, valid_first=rule == "valid_first", draws=4))
            means = [shares[rng.integers(0, len(shares), len(shares))].mean() for _ in range(draws)]  # over questions
            table[rule][str(k)] = _with(float(shares.mean()), interval(means) if draws else None)
    constants = {**{key: value for key, value in vars(law).items() if key != "coverage"}, **vars(law.coverage)}
    return {
        "law": "vote",
        "formula": "right with p, 0 with chance never, else Beta(alpha, beta); wrong answers from an urn (strength, discount)",
        "points": len(questions),
        "constants": {key: {"value": value} for key, value in constants.items()},
        "accuracy": table,
        "warnings": [],
    }
