"""What a law says of a budget: the best parameters and tokens, with repeated data and with inference in the account."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmsi_jax.core.errors import UserError
from lmsi_jax.scaling.fitting import Fit
from lmsi_jax.scaling.laws import Array


@dataclass(frozen=True)
class Allocation:
    """A training run: parameters, tokens, its operations 6 N D, those of inference 2 N D_inf, and the predicted loss."""

    params: float
    tokens: float
    training_flops: float
    inference_flops: float
    loss: float

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params


def _loss(fitted: Fit, params: Array, tokens: Array, unique: float) -> Array:
    columns = {"params": params, "tokens": tokens, "flops": 6 * params * tokens}
    return fitted.predict({**columns, "unique_tokens": np.minimum(unique, tokens)})


def optimal(fitted: Fit, flops: float, unique_tokens: float = math.inf) -> Allocation:
    """Return the run of least loss with 6 N D = `flops`; with the data-constrained law, of at most `unique_tokens` new tokens.

    Raises UserError for a law without both parameters and tokens.
    """
    _require_both(fitted)

    def loss(params: Array) -> Array:
        return _loss(fitted, params, flops / (6 * params), unique_tokens)

    params = _least(loss, 1.0, flops / 6)
    return Allocation(params, flops / (6 * params), flops, 0.0, float(loss(np.array([params]))[0]))


def optimal_with_inference(fitted: Fit, loss: float, inference_tokens: float, unique_tokens: float = math.inf) -> Allocation:
    """Return the cheapest model of this `loss` that also generates `inference_tokens`: the least 6 N D + 2 N D_inf.

    Sardana et al. 2024 (arXiv 2401.00448). For self-improvement the tokens are known beforehand: questions x paths x tokens a
    path x rounds. Raises UserError when the law cannot reach the loss.
    """
    _require_both(fitted)
    floor = fitted.constants.get("E", 0.0)
    if loss <= floor:
        raise UserError(f"A loss of {loss:g} is out of reach: the law's loss of an endless model and corpus is {floor:.4g}.")

    def tokens(params: Array) -> Array:
        """The training tokens that reach the loss, by bisection; infinite where this size cannot reach it."""
        low, high = np.full_like(params, 1.0), np.full_like(params, 1e30)
        for _ in range(120):
            middle = np.sqrt(low * high)
            above = _loss(fitted, params, middle, unique_tokens) > loss
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return np.where(high < 1e29, high, np.inf)

    params = _least(lambda params: 6 * params * tokens(params) + 2 * params * inference_tokens, 1e3, 1e16)
    trained = float(tokens(np.array([params]))[0])
    return Allocation(params, trained, 6 * params * trained, 2 * params * inference_tokens, loss)


def _require_both(fitted: Fit) -> None:
    if not {"params", "tokens"} <= set(fitted.law.fields):
        raise UserError(f"{fitted.law.name} has no optimum: it is a law of {', '.join(fitted.law.fields)} alone; fit another.")


def _least(function: Callable[[Array], Array], low: float, high: float) -> float:
    """Return where a function of positive numbers with one minimum is least, by ever finer grids.

    Raises UserError when the least value is at an end, or when there is none.
    """
    for zoom in range(7):
        grid = np.geomspace(low, high, 200)
        values = function(grid)
        at = int(np.argmin(np.where(np.isnan(values), np.inf, values)))
        if zoom == 0 and (at in (0, len(grid) - 1) or not np.isfinite(values[at])):
            raise UserError(
                f"The law has no optimum between {low:.3g} and {high:.3g} parameters; the exponents of its fit must be above "
                f"0, and the budget and the loss within the law's reach."
            )
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    return float(grid[at])
