"""Fits of a law to points: robust, converged, and with the uncertainty of what follows from them.

The objective is the sum over points of the Huber loss of log L(theta) - log L (Hoffmann et al. 2022, D.3), with delta = 1e-3.
It is a sum and not a mean: divided by n, it falls below the tolerance of the optimiser before it has converged, which is how
the published constants came about (Besiroglu et al. 2024).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber

from lmsi_jax.core.errors import UserError
from lmsi_jax.scaling.laws import Array, Columns, Constants, Law
from lmsi_jax.scaling.points import Points

DELTA = 1e-3
SCREENED = 24  # starts that are optimised, of those that are nearest to the points
POLISHED = 4  # of these, how many are optimised to the last digit


@dataclass(frozen=True)
class Fit:
    """A law with its fitted vector, the objective that was reached, and the norm of its gradient in scaled coordinates.

    The latter two are NaN where the vector is not from points at hand.
    """

    law: Law
    theta: Array
    objective: float = math.nan
    gradient_norm: float = math.nan

    @property
    def constants(self) -> Constants:
        return self.law.constants(self.theta)

    def predict(self, columns: Columns) -> Array:
        """Return the loss of each point."""
        return self.law.predict(self.theta, columns)


def objective(law: Law, theta: Array, columns: Columns, delta: float = DELTA) -> float:
    """Return the sum of Huber losses; infinite where the law is undefined."""
    with np.errstate(all="ignore"):
        residuals = law.log_loss(theta, columns) - np.log(columns["loss"])
    return float(huber(delta, residuals).sum()) if np.isfinite(residuals).all() else np.inf


def fit(law: Law, points: Points, delta: float = DELTA, starts: Array | None = None) -> Fit:
    """Minimise the objective from the law's starts, or from `starts`, of which all are then optimised.

    Raises UserError when the points cannot determine the law: fewer than its constants, or one value of a variable.
    """
    columns = points.columns
    require(law, points)
    screened = _best_first(law, columns, delta)[:SCREENED] if starts is None else starts
    ends = sorted((_descend(law, start, columns, delta, rounds=2) for start in screened), key=lambda end: end.objective)
    best = min((_descend(law, end.theta, columns, delta, rounds=12) for end in ends[:POLISHED]), key=lambda end: end.objective)
    if not np.isfinite(best.objective):
        raise UserError(f"No start of {law.name} leads to a finite loss; check the units of {', '.join(law.fields)}.")
    return best


def _best_first(law: Law, columns: Columns, delta: float) -> Array:
    """Return the law's starts by their objective."""
    starts = law.starts(columns)
    return starts[np.argsort([objective(law, start, columns, delta) for start in starts], kind="stable")]


def refit(fitted: Fit, columns: Columns, delta: float = DELTA, others: Sequence[Array] = ()) -> Fit:
    """Return the fit of a law to other points, the best from where it ended before and from `others`."""
    ends = [_descend(fitted.law, start, columns, delta, rounds=6) for start in (fitted.theta, *others)]
    return min(ends, key=lambda end: end.objective)


def vanished(fitted: Fit, columns: Columns, share: float = 1e-6) -> list[int]:
    """Return which terms of a sum are nowhere more than `share` of the loss: descent cannot bring them back."""
    if fitted.law.terms is None:
        return []
    terms = fitted.law.terms(fitted.theta, columns) - fitted.law.log_loss(fitted.theta, columns)
    return [i for i, each in enumerate(terms) if each.max() < np.log(share)]


def interior_starts(law: Law, columns: Columns, delta: float = DELTA, most: int = 3) -> list[Array]:
    """Return the starts nearest to the points at which every term is at least a thousandth of the loss somewhere."""
    starts = _best_first(law, columns, delta)
    return list(itertools.islice((start for start in starts if not vanished(Fit(law, start), columns, 1e-3)), most))


def _descend(law: Law, start: Array, columns: Columns, delta: float, rounds: int) -> Fit:
    """Minimise by L-BFGS in coordinates in which the points' Gauss-Newton matrix is the identity, again after each round.

    In the law's own coordinates the matrix has a condition number of 1e11, and descent stops far from the minimum.
    """
    theta, value, norm = np.asarray(start, float), objective(law, start, columns, delta), np.inf
    target = np.log(columns["loss"])
    for _ in range(rounds):
        if not np.isfinite(value):
            break
        back = _scaling(law.jacobian(theta, columns))

        def cost(z: Array, at: Array = theta, back: Array = back) -> tuple[float, Array]:
            with np.errstate(all="ignore"):
                moved = at + back @ z
                residuals = law.log_loss(moved, columns) - target
                if not np.isfinite(residuals).all():
                    return 1e10, np.zeros_like(z)
                slope = np.clip(residuals, -delta, delta) @ law.jacobian(moved, columns) @ back
            return float(huber(delta, residuals).sum()) / delta**2, slope / delta**2

        options = {"maxiter": 500, "maxfun": 2000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
        end = minimize(cost, np.zeros(len(theta)), jac=True, method="L-BFGS-B", options=options)
        reached, norm = end.fun * delta**2, float(np.linalg.norm(end.jac)) * delta**2
        if not reached < value:
            break
        gained, theta, value = value - reached, theta + back @ end.x, reached
        if gained < 1e-10 * value:
            break
    return Fit(law, theta, value, norm)


def _scaling(jacobian: Array) -> Array:
    """Return the matrix from scaled coordinates to theta: (J^T J)^(-1/2), bounded where the points determine nothing."""
    values, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    return vectors / np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-300)))


def require(law: Law, points: Points) -> None:
    """Raise UserError unless the points can determine the law at all."""
    if len(points) <= law.size:
        raise UserError(
            f"{law.name} has {law.size} constants and there are {len(points)} points; a fit needs more points than constants, "
            f"and several times as many for intervals."
        )
    for name in law.fields:
        values = points.columns[name]
        if len(np.unique(values)) < 2:
            raise UserError(
                f"All {len(points)} points have {name}={values[0]:g}, which says nothing of how the loss depends on it; "
                f"add runs of other {name}, or fit a law without it."
            )
