"""The compute-optimal frontier without a law of the loss (Hoffmann et al. 2022, 3.1 and 3.2).

Approach 1 reads the least loss at each compute from training curves. Approach 2 fits a parabola to the loss of runs of equal
compute. Both then fit N_opt = G C^a and D_opt = H C^b.
"""

from dataclasses import dataclass

import numpy as np

from lmsi_jax.core.errors import UserError
from lmsi_jax.scaling.laws import Array
from lmsi_jax.scaling.points import Points
from lmsi_jax.scaling.uncertainty import SAME, interval, resampled_runs

BINS = 1500  # values of compute at which approach 1 reads the least loss


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * C^exponent."""

    coefficient: float
    exponent: float

    def at(self, compute: float) -> float:
        return self.coefficient * compute**self.exponent


@dataclass(frozen=True)
class Frontier:
    """The optimal parameters and tokens by compute, and the points (C, N, D, loss) to which they are fitted.

    `refused` names the budgets that have no optimum inside their range.
    """

    params: PowerLaw
    tokens: PowerLaw
    optima: list[tuple[float, float, float, float]]
    refused: list[str]


def _power_law(x: Array, y: Array) -> PowerLaw:
    slope, level = np.polyfit(np.log(x), np.log(y), 1)
    return PowerLaw(float(np.exp(level)), float(slope))


def envelope(points: Points, bins: int = BINS) -> Frontier:
    """Approach 1: at `bins` values of compute, the run whose curve, interpolated in log C, has the least loss.

    Points of a run are measurements during it. Raises UserError without such runs of four sizes.
    """
    compute, loss = _compute(points), points.columns["loss"]
    runs = {name: np.flatnonzero(np.array(points.runs) == name) for name in dict.fromkeys(points.runs)}
    curves = {name: rows[np.argsort(compute[rows])] for name, rows in runs.items() if len(rows) > 1}
    distinct = {float(points.columns["params"][rows[0]]) for rows in curves.values()}
    if len(distinct) < 4:
        raise UserError(
            f"The envelope needs training curves of at least four sizes, and there are {len(curves)} runs with several points, "
            f"of {len(distinct)} sizes; give rows of one training the same 'run'."
        )
    grid = np.geomspace(compute.min(), compute.max(), bins)
    table = np.full((len(curves), bins), np.inf)
    for i, rows in enumerate(curves.values()):
        inside = (grid >= compute[rows[0]]) & (grid <= compute[rows[-1]])
        table[i, inside] = np.interp(np.log(grid[inside]), np.log(compute[rows]), loss[rows])
    sizes = np.array([points.columns["params"][rows[0]] for rows in curves.values()])
    best = np.argmin(table, axis=0)
    # The smallest and the largest size that were trained that far may be the best for lack of others.
    trained = np.isfinite(table)
    least = np.where(trained, sizes[:, None], np.inf).min(axis=0)
    most = np.where(trained, sizes[:, None], -np.inf).max(axis=0)
    inner = (least < sizes[best]) & (sizes[best] < most)
    grid, best, losses = grid[inner], best[inner], table.min(axis=0)[inner]
    if len(set(sizes[best])) < 2:
        raise UserError(
            "At no two values of compute do different sizes between the smallest and the largest have the least loss, so the "
            "curves show no frontier; add larger and smaller runs."
        )
    per_token = np.array([np.median(compute[rows] / points.columns["tokens"][rows]) for rows in curves.values()])
    params, tokens = sizes[best], grid / per_token[best]
    optima = list(zip(grid.tolist(), params.tolist(), tokens.tolist(), losses.tolist(), strict=True))
    return Frontier(_power_law(grid, params), _power_law(grid, tokens), optima, [])


def isoflop(points: Points, same: float = SAME) -> Frontier:
    """Approach 2: for each budget, the vertex of a parabola of the loss in log N, and in log D.

    A budget is refused by name when its parabola opens downwards, or has its vertex outside the runs. Raises UserError when
    fewer than two budgets are left.
    """
    compute, optima, refused = _compute(points), [], []
    groups: list[list[int]] = []
    for i in np.argsort(compute):
        if not groups or compute[i] > compute[groups[-1][0]] * (1 + same):
            groups.append([])
        groups[-1].append(int(i))
    for rows in groups:
        budget = float(np.exp(np.log(compute[rows]).mean()))
        vertices = [_vertex(points.columns[name][rows], points.columns["loss"][rows]) for name in ("params", "tokens")]
        if isinstance(vertices[0], str) or isinstance(vertices[1], str):
            reason = next(each for each in vertices if isinstance(each, str))
            refused.append(f"{budget:.3g} operations ({len(rows)} runs): {reason}")
        else:
            optima.append((budget, vertices[0][0], vertices[1][0], vertices[0][1]))
    if len(optima) < 2:
        raise UserError(
            f"IsoFLOP curves need two budgets with a minimum inside; there are {len(optima)}. " + " ".join(refused[:5])
        )
    budgets, params, tokens, _ = (np.array(column) for column in zip(*optima, strict=True))
    return Frontier(_power_law(budgets, params), _power_law(budgets, tokens), optima, refused)


def _compute(points: Points) -> Array:
    compute = points.compute
    if compute is None:
        raise UserError("A frontier needs params and tokens of every point.")
    return compute


def _vertex(sizes: Array, loss: Array) -> tuple[float, float] | str:
    """Return the minimum of a parabola in log size, and the loss there; or the reason why there is none."""
    if len(set(sizes)) < 3:
        return f"{len(set(sizes))} sizes do not determine a parabola."
    x = np.log(sizes)
    curvature, slope, level = np.polyfit(x - x.mean(), loss, 2)
    if curvature <= 0:
        return "the loss has no minimum, since its parabola opens downwards."
    at = -slope / (2 * curvature)
    if not x.min() <= at + x.mean() <= x.max():
        return f"the minimum lies outside the runs, at {np.exp(at + x.mean()):.3g}."
    return float(np.exp(at + x.mean())), float(level - slope**2 / (4 * curvature))


def exponent_intervals(points: Points, approach: str, draws: int, seed: int = 0) -> tuple[dict[str, tuple[float, float]], int]:
    """Return 95% intervals of a and b over resampled runs, and how many of the draws show no frontier and are left out."""
    method, exponents = {"envelope": envelope, "isoflop": isoflop}[approach], []
    for index in resampled_runs(points.runs, draws, seed):
        try:
            each = method(points.take(index))
        except UserError:
            continue
        exponents.append((each.params.exponent, each.tokens.exponent))
    a, b = zip(*exponents, strict=True) if exponents else ((), ())
    return {"a": interval(a), "b": interval(b)}, draws - len(exponents)
