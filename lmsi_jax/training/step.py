"""One training step: the loss of an objective, its exact gradient over microbatches, and the optimiser update."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array

from lmsi_jax.core.metrics import Mean
from lmsi_jax.model import transformer
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import jit, param_shardings, sharding, with_shardings
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.objective import Batch, Objective
from lmsi_jax.training.optimizer import optimizer
from lmsi_jax.training.trainable import Trainable

Metrics = dict[str, Mean]
Step = Callable[..., tuple["TrainState", dict[str, Array]]]


@struct.dataclass
class TrainState:
    """What a step reads and returns, and exactly what a checkpoint of a run stores.

    The same class describes a state, with a shape or a sharding for each array.

    Attributes:
      step: the number of completed steps.
      params: the trained arrays.
      opt_state: the optimiser state.
      finite: False after a non-finite loss or gradient. That step and all later ones change nothing else.
    """

    step: Any
    params: Any
    opt_state: Any
    finite: Any


def gradients(
    loss_of: Callable[[Any, Batch], tuple[Mean, Metrics]], trained: Any, batch: Batch, microbatches: int
) -> tuple[Mean, Metrics, Any]:
    """Return the loss, the metrics and the gradient of the mean loss over all targets of the batch.

    `loss_of` returns sums and counts of a microbatch. They are accumulated and divided once. The result is that of one large
    batch, however unevenly the targets are distributed over microbatches.
    """

    def total(trained: Any, part: Batch) -> tuple[Array, tuple[Mean, Metrics]]:
        loss, metrics = loss_of(trained, part)
        return loss.total, (loss, metrics)

    grad = jax.value_and_grad(total, has_aux=True)
    if microbatches == 1:
        (_, (loss, metrics)), summed = grad(trained, batch)
    else:
        parts = jax.tree.map(lambda a: a.reshape(microbatches, -1, *a.shape[1:]), batch.rows)
        first = Batch(jax.tree.map(lambda a: a[0], parts), batch.shared)
        totals = lambda trained, part: {name: mean.total for name, mean in loss_of(trained, part)[1].items()}  # noqa: E731
        names = jax.eval_shape(totals, trained, first)
        empty = Mean(jnp.zeros(()), jnp.zeros(()))
        zero = (empty, dict.fromkeys(names, empty))

        def add(carry: Any, rows: Any) -> tuple[Any, None]:
            (_, measured), g = grad(trained, Batch(rows, batch.shared))
            return jax.tree.map(jnp.add, carry, (measured, g)), None

        ((loss, metrics), summed), _ = jax.lax.scan(add, (zero, jax.tree.map(jnp.zeros_like, trained)), parts)
    count = jnp.where(loss.count > 0, loss.count, 1.0)  # a batch without targets has a gradient of 0
    return loss, metrics, jax.tree.map(lambda g: g / count, summed)


# Objectives are cached functions of their settings, so that a later round with the same settings runs the same program.
@functools.lru_cache(maxsize=4)
def make_step(objective: Objective, trainable: Trainable, config: UpdateConfig) -> Step:
    """Return the jitted step: (state, batch, frozen parameters) -> (state, metrics by name).

    The state passed in is donated, so that only the returned one may be used afterwards.
    """
    tx = optimizer(config, trainable)

    def train_step(state: TrainState, batch: Batch, frozen: transformer.Params) -> tuple[TrainState, dict[str, Array]]:
        def loss_of(trained: Any, part: Batch) -> tuple[Mean, Metrics]:
            return objective(trainable.model(frozen, trained), part)

        with jax.named_scope("gradient"):
            loss, metrics, grads = gradients(loss_of, state.params, batch, config.accumulate)
        with jax.named_scope("update"):
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            norm = optax.tree.norm(grads)
            finite = state.finite & jnp.isfinite(loss.value) & jnp.isfinite(norm)
            new = TrainState(state.step + 1, params, opt_state, finite)
            state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, dataclasses.replace(state, finite=finite))
        values = {name: mean.value for name, mean in metrics.items()}
        return state, {"loss": loss.value, "targets": loss.count, "grad_norm": norm, **values}

    return jit(train_step, donate_argnums=(0,))


def init_state(mesh: Mesh, trainable: Trainable, config: UpdateConfig, params: transformer.Params, seed: int) -> TrainState:
    """Return the state at step 0.

    It shares no memory with `params`, since the step donates its state and the caller keeps using `params`.
    """
    tx = optimizer(config, trainable)

    def make(params: transformer.Params) -> TrainState:
        trained = trainable.init(params, seed)
        return TrainState(jnp.zeros((), jnp.int32), trained, tx.init(trained), jnp.ones((), bool))

    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(mesh, trainable, config))
    return jax.jit(make, out_shardings=places)(params)


def abstract_state(mesh: Mesh, trainable: Trainable, config: UpdateConfig) -> TrainState:
    """Return the shapes and shardings of a state. The optimiser moments of an array have its sharding."""
    shapes, axes = trainable.abstract()
    places = param_shardings(mesh, shapes, axes)
    scalar, tx = sharding(mesh), optimizer(config, trainable)

    def choose(leaf: jax.ShapeDtypeStruct, of: jax.ShapeDtypeStruct, place: jax.sharding.Sharding) -> jax.sharding.Sharding:
        return place if leaf.shape == of.shape else scalar  # row and column sums are small, and replicated

    step, finite = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.int32, jnp.bool))
    opt = jax.eval_shape(tx.init, shapes)
    opt_places = optax.tree_map_params(tx, choose, opt, shapes, places, transform_non_params=lambda _: scalar)
    return with_shardings(TrainState(step, shapes, opt, finite), TrainState(scalar, places, opt_places, scalar))
