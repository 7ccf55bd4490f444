"""The laws: loss as a function of parameters N, training tokens D and compute C.

A law is a function of a vector of free numbers (`theta`), on a scale on which they may take any value, and of columns of the
points. It returns the logarithm of the loss. `constants` maps the vector to the constants of the publication.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]
Index = NDArray[np.intp] | NDArray[np.bool_]
Columns = Mapping[str, Array]
Function = Callable[[Array, Columns], Array]  # of (theta, columns)
Constants = dict[str, float]


@dataclass(frozen=True)
class Law:
    """A law of the loss.

    Attributes:
      name: its name on the command line.
      formula: the law as text, in terms of its constants.
      fields: the columns of the points that it reads.
      log_loss: (theta, columns) -> the logarithm of the loss of each point.
      constants: theta -> the published constants, by name.
      starts: columns -> the vectors (s, p) from which the fit starts.
      size: the number of constants.
      exponents: for laws with an optimum at given compute, theta -> (a, b) with N_opt ~ C^a and D_opt ~ C^b.
      slope: (theta, columns) -> the derivative (n, p) of the logarithm of the loss; by default from central differences.
      terms: for sums of terms, (theta, columns) -> the logarithm (terms, n) of each, in the order of theta.
    """

    name: str
    formula: str
    fields: tuple[str, ...]
    log_loss: Function
    constants: Callable[[Array], Constants]
    starts: Callable[[Columns], Array]
    size: int
    exponents: Callable[[Array], tuple[float, float]] | None = None
    slope: Function | None = None
    terms: Function | None = None

    def predict(self, theta: Array, columns: Columns) -> Array:
        """Return the loss of each point."""
        return np.exp(self.log_loss(theta, columns))

    def jacobian(self, theta: Array, columns: Columns) -> Array:
        """Return the derivative (n, p) of the logarithm of the loss."""
        if self.slope:
            return self.slope(theta, columns)
        steps = 1e-6 * np.maximum(1.0, np.abs(theta))
        moved = [(theta + step * unit, theta - step * unit) for step, unit in zip(steps, np.eye(len(theta)), strict=True)]
        pairs = [(self.log_loss(up, columns) - self.log_loss(down, columns)) for up, down in moved]
        return np.stack(pairs, axis=1) / (2 * steps)


def _log_sum(terms: Array) -> Array:
    """Return log(sum(exp(terms))) over the first axis; SciPy's is slow on arrays of this size."""
    top = terms.max(axis=0)
    return top + np.log(np.exp(terms - top).sum(axis=0))


def _power(name: str, column: str, critical: str, exponent: str) -> Law:
    """Return L = (X_c / X)^alpha, a straight line in logarithms: log L = theta[0] - theta[1] log X."""

    def constants(theta: Array) -> Constants:
        return {critical: float(np.exp(theta[0] / theta[1])), exponent: float(theta[1])}

    def starts(columns: Columns) -> Array:
        slope, level = np.polyfit(np.log(columns[column]), np.log(columns["loss"]), 1)
        return np.array([[level, -slope]])

    def log_loss(theta: Array, columns: Columns) -> Array:
        return theta[0] - theta[1] * np.log(columns[column])

    def slope(theta: Array, columns: Columns) -> Array:
        return np.stack([np.ones_like(columns[column]), -np.log(columns[column])], axis=1)

    formula = f"L = ({critical}/{column})^{exponent}"
    return Law(name, formula, (column,), log_loss, constants, starts, 2, slope=slope)


def _kaplan_both(theta: Array, columns: Columns) -> Array:
    """log L = aD log-sum-exp((aN / aD) log(Nc / N), log(Dc / D)); theta = (aN log Nc, aN, log Dc, aD)."""
    level, a_n, critical, a_d = theta
    size = (level - a_n * np.log(columns["params"])) / a_d
    return a_d * _log_sum(np.stack([size, critical - np.log(columns["tokens"])]))


def _kaplan_starts(columns: Columns) -> Array:
    log_l, log_n, log_d = (np.log(columns[name]) for name in ("loss", "params", "tokens"))
    grid = []
    for a_n in (0.05, 0.1, 0.2, 0.4):
        for a_d in (0.05, 0.1, 0.2, 0.4):
            # Half of the loss from each term, at the median point.
            level, critical = np.median(log_l) + a_n * np.median(log_n), np.median(log_l) / a_d + np.median(log_d)
            grid += [(level - shift * a_n, a_n, critical + shift, a_d) for shift in (-4.0, 0.0, 4.0)]
    return np.array(grid)


def _terms(theta: Array, columns: Columns) -> Array:
    """Return the logarithms (3, n) of A / N^alpha, B / D^beta and E; theta = (a, b, e, alpha, beta), logarithms of A, B, E."""
    a, b, e, alpha, beta = theta
    size, data = a - alpha * np.log(columns["params"]), b - beta * np.log(columns["tokens"])
    return np.stack([size, data, np.full_like(size, e)])


def _chinchilla(theta: Array, columns: Columns) -> Array:
    return _log_sum(_terms(theta, columns))


def _chinchilla_slope(theta: Array, columns: Columns) -> Array:
    """The derivative by a, b and e is the share of each term in the loss."""
    terms = _terms(theta, columns)
    a, b, e = np.exp(terms - _log_sum(terms))
    return np.stack([a, b, e, -a * np.log(columns["params"]), -b * np.log(columns["tokens"])], axis=1)


def _chinchilla_constants(theta: Array) -> Constants:
    a, b, e = np.exp(np.minimum(theta[:3], 700))
    return {"E": float(e), "A": float(a), "B": float(b), "alpha": float(theta[3]), "beta": float(theta[4])}


def _optimal(theta: Array) -> tuple[float, float]:
    alpha, beta = theta[3], theta[4]
    return float(beta / (alpha + beta)), float(alpha / (alpha + beta))


def _chinchilla_starts(columns: Columns) -> Array:
    """Return starts by variable projection, best first: for fixed exponents, A, B and E are a linear least-squares problem.

    It is solved for relative errors, without negative parts; a part of 0 starts at a millionth of the loss.
    """
    params, tokens, loss = (columns[name] for name in ("params", "tokens", "loss"))
    grid, solved = np.geomspace(0.03, 2.0, 24), []
    for alpha, beta in itertools.product(grid, grid):
        design = np.stack([params**-alpha, tokens**-beta, np.ones_like(loss)], axis=1) / loss[:, None]
        scale = np.linalg.norm(design, axis=0)
        solution = nnls(design / scale, np.ones_like(loss))[0] / scale
        error = float(((design @ solution - 1) ** 2).sum())
        floor = 1e-6 / design.max(axis=0)
        solved.append((error, (*np.log(np.maximum(solution, floor)), alpha, beta)))
    return np.array([theta for _, theta in sorted(solved)])


def chinchilla_grid() -> Array:
    """Return the 4,500 published starts (Hoffmann et al. 2022, D.3), each a theta."""
    exponents, logs = np.arange(0, 2.01, 0.5), np.arange(0, 25.1, 5)
    axes = np.meshgrid(logs, logs, np.arange(-1, 1.01, 0.5), exponents, exponents, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)


def _overtraining(theta: Array, columns: Columns) -> Array:
    """Chinchilla's law with one exponent; theta = (a, b, e, eta)."""
    return _chinchilla(np.append(theta, theta[3]), columns)


def _overtraining_slope(theta: Array, columns: Columns) -> Array:
    slope = _chinchilla_slope(np.append(theta, theta[3]), columns)
    return np.concatenate([slope[:, :3], slope[:, 3:].sum(axis=1, keepdims=True)], axis=1)


def _overtraining_constants(theta: Array) -> Constants:
    """Gadre's constants: L = E + (a M^eta + b M^-eta) C^-eta with C = 6 N D, M = D / N."""
    a, b, e = np.exp(np.minimum(theta[:3], 700))
    eta, six = theta[3] / 2, 6 ** (theta[3] / 2)
    return {"E": float(e), "a": float(a * six), "b": float(b * six), "eta": float(eta)}


def _overtraining_starts(columns: Columns) -> Array:
    return _chinchilla_starts(columns)[:, [0, 1, 2, 3]]


def _effective(unique: Array, repeats: Array, half: float) -> Array:
    """Return U + U R* (1 - exp(-R / R*)): what `repeats` further passes over `unique` units are worth in new units."""
    return unique + unique * half * -np.expm1(-repeats / half)


def _data_constrained(theta: Array, columns: Columns) -> Array:
    """Chinchilla's law of effective parameters and tokens; theta = (a, b, e, alpha, beta, log R_D*, log R_N*)."""
    a, b, _, alpha, beta, half_d, half_n = theta
    params, tokens, unique = columns["params"], columns["tokens"], columns["unique_tokens"]
    seen = np.minimum(unique, tokens)
    log_g = (a + np.log(alpha) - b - np.log(beta)) / (alpha + beta) if min(alpha, beta) > 0 else np.nan
    needed = np.exp(np.minimum(log_g + beta / alpha * (np.log(seen) + log_g), 700))  # N that is optimal for these tokens
    base = np.minimum(params, needed)
    data = _effective(seen, tokens / seen - 1, np.exp(np.minimum(half_d, 50)))
    size = _effective(base, np.maximum(params / base - 1, 0), np.exp(np.minimum(half_n, 50)))
    return _chinchilla(theta[:5], {"params": size, "tokens": data})


def _data_constrained_constants(theta: Array) -> Constants:
    r_d, r_n = np.exp(np.minimum(theta[5:], 50))
    return {**_chinchilla_constants(theta[:5]), "R_D*": float(r_d), "R_N*": float(r_n)}


def _data_constrained_starts(columns: Columns) -> Array:
    once = columns["tokens"] <= 4 * columns["unique_tokens"]
    some = {name: values[once] for name, values in columns.items()} if once.sum() >= 8 else columns
    firsts = _chinchilla_starts(some)[:10]
    return np.array([(*first, np.log(r_d), np.log(r_n)) for first in firsts for r_d in (5, 15) for r_n in (5, 15)])


LAWS = {
    law.name: law
    for law in (
        _power("kaplan_params", "params", "N_c", "alpha_N"),
        _power("kaplan_tokens", "tokens", "D_c", "alpha_D"),
        _power("kaplan_compute", "flops", "C_c", "alpha_C"),
        Law(
            "kaplan_params_tokens",
            "L = ((N_c/params)^(alpha_N/alpha_D) + D_c/tokens)^alpha_D",
            ("params", "tokens"),
            _kaplan_both,
            lambda theta: {
                "N_c": float(np.exp(theta[0] / theta[1])),
                "alpha_N": float(theta[1]),
                "D_c": float(np.exp(theta[2])),
                "alpha_D": float(theta[3]),
            },
            _kaplan_starts,
            4,
            lambda theta: (float(theta[3] / (theta[1] + theta[3])), float(theta[1] / (theta[1] + theta[3]))),
        ),
        Law(
            "chinchilla_parametric",
            "L = E + A/params^alpha + B/tokens^beta",
            ("params", "tokens"),
            _chinchilla,
            _chinchilla_constants,
            _chinchilla_starts,
            5,
            _optimal,
            _chinchilla_slope,
            _terms,
        ),
        Law(
            "overtraining",
            "L = E + (a*M^eta + b*M^-eta)*C^-eta, C = 6*params*tokens, M = tokens/params",
            ("params", "tokens"),
            _overtraining,
            _overtraining_constants,
            _overtraining_starts,
            4,
            lambda theta: (0.5, 0.5),
            _overtraining_slope,
            lambda theta, columns: _terms(np.append(theta, theta[3]), columns),
        ),
        Law(
            "data_constrained",
            "L = E + A/N'^alpha + B/D'^beta, X' = U + U R* (1 - exp(-R/R*))",
            ("params", "tokens", "unique_tokens"),
            _data_constrained,
            _data_constrained_constants,
            _data_constrained_starts,
            7,
            _optimal,
        ),
    )
}
