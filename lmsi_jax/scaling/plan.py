"""A plan of a training run from a fit and a budget: `lmsi scaling plan`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmsi_jax.core.errors import UserError, unknown
from lmsi_jax.core.records import Record, finite, read_jsonl
from lmsi_jax.scaling.allocation import optimal, optimal_with_inference
from lmsi_jax.scaling.energy import carbon, energy
from lmsi_jax.scaling.fitting import Fit
from lmsi_jax.scaling.laws import LAWS
from lmsi_jax.scaling.published import PUBLISHED
from lmsi_jax.scaling.uncertainty import interval

TUNED = (5e6, 9e8)  # parameters of the models for which the rules of `schedule` were found


@dataclass(frozen=True)
class Hardware:
    """The chips of a run, their peak operations per second each, and what is assumed of them."""

    chips: int
    operations: float
    utilisation: float = 0.4  # model operations as a share of the peak (MFU)
    price: float | None = None  # dollars per chip hour
    watts: float | None = None  # average per chip
    pue: float = 1.1  # power of the data centre over that of its chips
    kg_per_kwh: float = 0.475  # carbon dioxide of electricity; this is the world's average

    @property
    def per_hour(self) -> float:
        """Return the model operations of an hour."""
        return self.chips * self.operations * self.utilisation * 3600


def read_fit(name: str) -> list[Fit]:
    """Return the fit of a record of `lmsi scaling fit`, or a published one by name, followed by its resampled fits."""
    if name in PUBLISHED:
        return [PUBLISHED[name]]
    if not os.path.exists(name):
        raise unknown("published fit, and no file,", name, PUBLISHED)
    record = next(read_jsonl(name), {})
    law, draws = LAWS.get(str(record.get("law"))), record.get("theta")
    if law is None or not isinstance(draws, list) or not draws:
        raise UserError(f"{name} is no record of a law of the loss; write it by lmsi scaling fit --output={name}.")
    numbers = [[finite(value) for value in theta] if isinstance(theta, list) else [] for theta in draws]
    if any(len(theta) != law.size or None in theta for theta in numbers):
        raise UserError(f"{name}: each theta must have {law.size} numbers; write the record again by lmsi scaling fit.")
    return [Fit(law, np.array(theta, float)) for theta in numbers]


def plan(
    fits: Sequence[Fit], flops: float, unique_tokens: float, inference_tokens: float, hardware: Hardware | None = None
) -> Record:
    """Return the best parameters and tokens for `flops` of training, with intervals over the resampled fits.

    With `inference_tokens`, a second plan reaches the same loss at the least cost of training and inference together.
    Raises UserError for `unique_tokens` with a law without repeated tokens.
    """
    if np.isfinite(unique_tokens) and "unique_tokens" not in fits[0].law.fields:
        raise UserError(f"{fits[0].law.name} knows no repeated tokens; --unique_tokens needs a data_constrained fit.")
    best = [optimal(each, flops, unique_tokens) for each in fits]
    record: Record = {"law": fits[0].law.name, "flops": flops}
    for name in ("params", "tokens", "tokens_per_param", "loss"):
        values = [float(getattr(each, name)) for each in best]
        record[name] = {"value": values[0]}
        if len(values) > 1:
            record[name]["low"], record[name]["high"] = interval(values[1:])
    record["schedule"] = schedule(best[0].params, best[0].tokens)
    if np.isfinite(unique_tokens):
        record["epochs"] = best[0].tokens / min(unique_tokens, best[0].tokens)
    if inference_tokens:
        both = optimal_with_inference(fits[0], best[0].loss, inference_tokens, unique_tokens)
        alone = flops + 2 * best[0].params * inference_tokens
        record["with_inference"] = {
            "inference_tokens": inference_tokens,
            "params": both.params,
            "tokens": both.tokens,
            "flops": both.training_flops + both.inference_flops,
            "share_of_the_other": (both.training_flops + both.inference_flops) / alone,
        }
    if hardware:
        total = record["with_inference"]["flops"] if inference_tokens else flops
        record["hardware"] = _cost(hardware, total)
    return record


def schedule(params: float, tokens: float) -> Record:
    """Return batch, steps, learning rate and warmup of a run by the rules of Porian et al. 2024 (arXiv 2406.19146).

    They tuned models of 5M to 900M parameters with AdamW, on sequences of 2,048 tokens. `batch_tokens` grows as N^(2/3). The
    rate falls as N^(-1/3), and to 0 along a cosine. Warmup takes as many tokens as there are parameters, at most a tenth.
    """
    share = params / 1.08e8
    batch = min(160 * 2048 * share ** (2 / 3), tokens)
    steps = max(1, round(tokens / batch))
    return {
        "batch_tokens": batch,
        "steps": steps,
        "warmup_steps": round(min(params / batch, 0.1 * steps)),
        "learning_rate": 0.0047 * share ** (-1 / 3),
        "decay": "cosine",
        "within_what_was_tuned": TUNED[0] <= params <= TUNED[1],
    }


def _cost(hardware: Hardware, flops: float) -> Record:
    hours = flops / hardware.per_hour
    assumed = {name: value for name, value in vars(hardware).items() if value is not None}
    cost: Record = {"hours": hours, "chip_hours": hours * hardware.chips, "assumed": assumed}
    if hardware.price:
        cost["dollars"] = cost["chip_hours"] * hardware.price
    if hardware.watts:
        used = energy(hours, hardware.chips, hardware.watts, hardware.pue)
        cost["kilowatt_hours"], cost["tonnes_of_co2"] = used, carbon(used, hardware.kg_per_kwh)
    return cost
