"""Published fits, as vectors of this package's laws. The numbers are those of the authors, with as many digits as they give."""

import numpy as np

from lmsi_jax.scaling.fitting import Fit
from lmsi_jax.scaling.laws import LAWS


def _fit(law: str, *theta: float) -> Fit:
    return Fit(LAWS[law], np.array(theta))


def _additive(e: float, a: float, b: float, alpha: float, beta: float) -> Fit:
    return _fit("chinchilla_parametric", np.log(a), np.log(b), np.log(e), alpha, beta)


def published_count(name: str) -> str:
    """Return which parameters a published fit counts."""
    return "non_embedding" if name == "kaplan_2020" else "total"


PUBLISHED = {
    # Kaplan et al. 2020 (arXiv 2001.08361), table 5 and equation 1.5; N without embeddings.
    "kaplan_2020": _fit("kaplan_params_tokens", 0.076 * np.log(6.4e13), 0.076, np.log(1.8e13), 0.103),
    # Hoffmann et al. 2022 (arXiv 2203.15556), equation 10. Their optimiser had not converged.
    "hoffmann_2022": _additive(1.69, 406.4, 410.7, 0.34, 0.28),
    # Besiroglu et al. 2024 (arXiv 2404.10102), on points read from the figures of Hoffmann et al.
    "besiroglu_2024": _additive(1.8172, 482.01, 2085.43, 0.3478, 0.3658),
    # Muennighoff et al. 2023 (arXiv 2305.16264), of repeated tokens.
    "muennighoff_2023": _fit(
        "data_constrained", 6.255414, 7.3049974, 0.6254804, 0.3526596, 0.3526596, np.log(15.387756), np.log(5.309743)
    ),
}
