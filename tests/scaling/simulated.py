"""Points that follow a law exactly or with noise."""

import numpy as np

from lmsi_jax.scaling.laws import LAWS
from lmsi_jax.scaling.points import Points
from lmsi_jax.scaling.published import PUBLISHED

THETA = {
    **{each.law.name: each.theta for name, each in PUBLISHED.items() if name != "hoffmann_2022"},
    "kaplan_params": np.array([0.076 * np.log(8.8e13), 0.076]),
    "kaplan_tokens": np.array([0.095 * np.log(5.4e13), 0.095]),
    "kaplan_compute": np.array([0.050 * np.log(3.1e8 * 8.64e19), 0.050]),
    "overtraining": np.array([np.log(300), np.log(900), np.log(1.6), 0.33]),
}


def points(law, n=120, noise=0.0, seed=0):
    """Runs of 4e7 to 1.6e10 parameters, 2 to 300 tokens a parameter, of which up to 20 passes over the same tokens."""
    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), n))
    tokens = params * np.exp(rng.uniform(np.log(2), np.log(300), n))
    unique = tokens / np.exp(rng.uniform(-1, 3, n)).clip(1)
    columns = {"params": params, "tokens": tokens, "flops": 6 * params * tokens, "unique_tokens": unique}
    loss = np.exp(LAWS[law].log_loss(THETA[law], columns) + noise * rng.standard_t(3, n))
    return Points({**columns, "loss": loss}, tuple(str(i) for i in range(n)))
