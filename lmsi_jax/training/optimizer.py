"""The optimiser and its learning-rate schedule."""

import jax
import jax.numpy as jnp
import optax

from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.trainable import Trainable


def learning_rate(config: UpdateConfig) -> optax.Schedule:
    """Return the learning-rate schedule, a function from the number of completed steps to the rate of the next step.

    It is linear warmup to the peak, and then `config.schedule` until the last step.
    """
    peak, remaining = config.learning_rate, config.steps - config.warmup
    decay = {
        "cosine": optax.cosine_decay_schedule(peak, remaining, config.final_learning_rate),
        "linear": optax.linear_schedule(peak, peak * config.final_learning_rate, remaining),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    rate = optax.join_schedules([optax.linear_schedule(0.0, peak, config.warmup), decay], [config.warmup])
    return lambda count: rate(count + 1)  # steps are numbered from 1, so that the first step has a rate above 0


def optimizer(config: UpdateConfig, trainable: Trainable) -> optax.GradientTransformation:
    """Return AdamW or Adafactor with gradient clipping, and with the weight decay and the learning rates of what is trained."""
    decays, factors = trainable.decays(), trainable.rate_factors()
    schedule = learning_rate(config)
    if config.optimizer == "adafactor":  # without momentum and relative steps: Shazeer and Stern 2018, arXiv 1804.04235
        rule = optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.add_decayed_weights(config.weight_decay, mask=decays),
            optax.scale_by_learning_rate(schedule),
        )
    else:
        moment = jnp.dtype(config.first_moment)
        rule = optax.adamw(schedule, b1=0.9, b2=config.beta2, weight_decay=config.weight_decay, mask=decays, mu_dtype=moment)
    steps = [optax.clip_by_global_norm(config.clip), rule]
    if any(factor != 1 for factor in jax.tree.leaves(factors)):
        steps.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)))
    return optax.chain(*steps)
