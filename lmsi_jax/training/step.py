"""One training step: loss on the targets, exact gradient accumulation, AdamW."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Int

from lmsi_jax import model
from lmsi_jax.core.config import ModelConfig, TrainConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.metrics import Mean
from lmsi_jax.model import Block, lora
from lmsi_jax.sharding import Mesh, constrain, jit, param_shardings, sharding

Batch = dict[str, Array]


@struct.dataclass
class TrainState:
    """What a step reads and writes; a checkpoint holds exactly this.

    In a description of a state each array stands as its shape or its sharding.
    """

    step: Any
    params: model.Params
    opt_state: Any
    finite: Any  # were all losses and gradients so far? From the first that was not, steps leave the rest as it was before it


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """By the number of steps before it: linear warm-up to the peak, then as the config's `schedule` says to its last step."""
    peak, left = config.learning_rate, config.steps - config.warmup
    after = {
        "cosine": optax.cosine_decay_schedule(peak, left, config.final_learning_rate),
        "linear": optax.linear_schedule(peak, peak * config.final_learning_rate, left),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    of_step = optax.join_schedules([optax.linear_schedule(0.0, peak, config.warmup), after], [config.warmup])
    return lambda count: of_step(count + 1)  # steps are numbered from 1, so that the first one has a rate above 0


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW or Adafactor with clipping; weights decay, norm scales and biases do not."""
    schedule = learning_rate(config)

    def decayed(params: Any) -> Any:
        plain = lambda path: path[-1].key == "scale" or path[-1].key.endswith("_bias")  # noqa: E731
        return jax.tree.map_with_path(lambda path, _: not plain(path), params)

    if config.optimizer == "adafactor":  # without momentum and relative steps: Shazeer and Stern 2018, arXiv 1804.04235
        rule = optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.add_decayed_weights(config.weight_decay, mask=decayed),
            optax.scale_by_learning_rate(schedule),
        )
    else:
        rule = optax.adamw(schedule, b1=0.9, b2=config.beta2, weight_decay=config.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def causal_mask(segments: Int[Array, "n t"]) -> Bool[Array, "n t t"]:
    """Token i sees token j when j is not later and in the same segment.

    Padding (segment 0) sees padding, so that every softmax has something to look at.
    """
    t = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    return same & jnp.tril(jnp.ones((t, t), bool))[None]


@struct.dataclass
class SharedPrompts:
    """Beginnings that rows share; padded to the longest, and in number to a multiple of the parts of the batch axis."""

    tokens: Int[Array, "p s"]
    length: Int[Array, " p"]


def shared_blocks(
    config: ModelConfig,
    params: model.Params | lora.Adapted,
    prompts: SharedPrompts,
    prompt: Int[Array, " n"],
    remat: str = "none",
) -> list[list[Block]]:
    """What each layer's rows see of the prompts they continue, each computed once; gradients flow through all its readers."""
    p, s = prompts.tokens.shape
    slots = jnp.arange(s)[None, :]
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((s, s), bool))[None], (p, s, s))
    _, cache = model.forward(config, params, prompts.tokens, jnp.broadcast_to(slots, (p, s)), mask, remat=remat)
    which = jnp.maximum(prompt - 1, 0)
    seen = (slots < prompts.length[which][:, None]) & (prompt > 0)[:, None]

    def of_rows(array: Array) -> Array:
        everywhere = constrain(array, None, "kv_heads", "length", "head_width")
        return constrain(everywhere[which], "batch", "kv_heads", "length", "head_width")

    return [[Block(of_rows(keys), of_rows(values), seen, slots)] for keys, values in cache]


def batch_loss(
    config: ModelConfig,
    params: model.Params | lora.Adapted,
    batch: Batch,
    prompts: SharedPrompts | None = None,
    remat: str = "none",
    z_loss: float = 0.0,
) -> Mean:
    """Cross-entropy summed over the weighted targets, in nats, and the sum of the weights.

    With `z_loss` each target also costs that times the square of its log-normaliser, which keeps logits from drifting
    (Chowdhery et al. 2022, section 5).
    """
    mask = causal_mask(batch["segments"])
    past = shared_blocks(config, params, prompts, batch["prompt"], remat) if prompts is not None else None
    logits, _ = model.forward(config, params, batch["tokens"], batch["positions"], mask, past, remat)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
    if z_loss:
        losses += z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2
    return Mean(jnp.sum(losses * batch["weights"]), jnp.sum(batch["weights"]))


def gradients(loss_of: Callable[[Any, Batch], Mean], trained: Any, batch: Batch, microbatches: int) -> tuple[Mean, Any]:
    """Loss and gradient of the mean over all targets of the batch.

    `loss_of` gives the sum and the count of a part. They are accumulated over `microbatches`, and divided once: the result
    is that of one large batch, however unevenly targets fall on microbatches.
    """

    def total(trained: Any, part: Batch) -> tuple[Array, Mean]:
        loss = loss_of(trained, part)
        return loss.total, loss

    grad = jax.value_and_grad(total, has_aux=True)
    if microbatches == 1:
        (_, loss), summed = grad(trained, batch)
    else:
        parts = jax.tree.map(lambda a: a.reshape(microbatches, -1, *a.shape[1:]), batch)

        def add(carry, part):
            (_, loss), g = grad(trained, part)
            return (carry[0] + loss, jax.tree.map(jnp.add, carry[1], g)), None

        zero = Mean(jnp.zeros(()), jnp.zeros(()))
        (loss, summed), _ = jax.lax.scan(add, (zero, jax.tree.map(jnp.zeros_like, trained)), parts)
    count = jnp.where(loss.count > 0, loss.count, 1.0)  # a batch without targets has a gradient of 0
    return loss, jax.tree.map(lambda g: g / count, summed)


def make_step(model_config: ModelConfig, config: TrainConfig) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The jitted step (state, batch, frozen parameters, prompts). Its state is donated: use only the returned one afterwards.

    The frozen parameters are those of the model under LoRA, and {} where all are trained. The prompts are those that the
    batch's rows continue; None where its rows are whole.
    """
    tx = optimizer(config)

    def train_step(
        state: TrainState, batch: Batch, frozen: model.Params, prompts: SharedPrompts | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        def loss_of(trained: Any, part: Batch) -> Mean:
            params = lora.Adapted(frozen, trained, config.lora) if config.lora.rank else trained
            return batch_loss(model_config, params, part, prompts, config.remat, config.z_loss)

        with jax.named_scope("gradient"):
            loss, grads = gradients(loss_of, state.params, batch, config.accumulate)
        with jax.named_scope("update"):
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            norm = optax.tree.norm(grads)
            finite = state.finite & jnp.isfinite(loss.value) & jnp.isfinite(norm)
            new = TrainState(state.step + 1, params, opt_state, finite)
            state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, dataclasses.replace(state, finite=finite))
        return state, {"loss": loss.value, "targets": loss.count, "grad_norm": norm}

    return jit(train_step, donate_argnums=(0,))


def trained_shapes(model_config: ModelConfig, config: TrainConfig) -> tuple[Any, Any]:
    """Shapes and logical axes of what is trained: a float32 copy of the parameters, or the adapters."""
    shapes, axes = model.abstract(dataclasses.replace(model_config, param_dtype="float32"))
    return lora.abstract(shapes, axes, config.lora) if config.lora.rank else (shapes, axes)


def state_shardings(mesh: Mesh, model_config: ModelConfig, config: TrainConfig) -> TrainState:
    """Where each part of the state lives: moments beside the parameters they belong to."""
    shapes, axes = trained_shapes(model_config, config)
    placed = param_shardings(mesh, shapes, axes)
    scalar = sharding(mesh)
    opt_shapes = jax.eval_shape(optimizer(config).init, shapes)

    def beside(leaf: jax.ShapeDtypeStruct, of: jax.ShapeDtypeStruct, place: jax.sharding.Sharding) -> jax.sharding.Sharding:
        return place if leaf.shape == of.shape else scalar  # sums over rows or columns are small: everywhere

    opt = optax.tree_map_params(optimizer(config), beside, opt_shapes, shapes, placed, transform_non_params=lambda _: scalar)
    return TrainState(scalar, placed, opt, scalar)


def init_state(mesh: Mesh, model_config: ModelConfig, config: TrainConfig, params: model.Params, seed: int) -> TrainState:
    """A state at step 0: a copy of `params` (the step donates its state, and the caller keeps theirs), or new adapters."""
    shapes, _ = trained_shapes(model_config, config)

    def make(params: model.Params) -> TrainState:
        if config.lora.rank:
            trained = lora.init(shapes, jax.random.key(seed))
        else:
            trained = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)
        return TrainState(jnp.zeros((), jnp.int32), trained, optimizer(config).init(trained), jnp.ones((), bool))

    return jax.jit(make, out_shardings=state_shardings(mesh, model_config, config))(params)


def abstract_state(mesh: Mesh, model_config: ModelConfig, config: TrainConfig) -> TrainState:
    """Shapes with shardings, as a checkpoint is restored into."""
    shapes, _ = trained_shapes(model_config, config)
    step, finite = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.int32, jnp.bool))
    state = TrainState(step, shapes, jax.eval_shape(optimizer(config).init, shapes), finite)
    places = state_shardings(mesh, model_config, config)
    return jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), state, places)


def trained_model(model_config: ModelConfig, config: TrainConfig, params: model.Params, trained: Any) -> model.Params:
    """The model's parameters after training, in its storage dtype; `params` are those that training started from."""

    def make(params: model.Params, trained: Any) -> model.Params:
        merged = lora.merge(params, trained, config.lora) if config.lora.rank else trained
        return jax.tree.map(lambda leaf: leaf.astype(model_config.param_dtype), merged)

    return jax.jit(make, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params))(params, trained)


def place_batch(mesh: Mesh, batch: dict[str, Any]) -> Batch:
    """Host arrays onto the mesh, rows over its batch axes."""
    axes = ("batch", "length")
    return {name: jax.device_put(array, sharding(mesh, *axes[: array.ndim])) for name, array in batch.items()}


def place_prompts(mesh: Mesh, prompts: Sequence[Sequence[int]]) -> SharedPrompts | None:
    """Shared beginnings onto the mesh; None when there are none."""
    if not prompts:
        return None
    parts = mesh.size("batch")
    rows = -(-len(prompts) // parts) * parts
    tokens, length = np.zeros((rows, max(map(len, prompts))), np.int32), np.zeros(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)], length[row] = prompt, len(prompt)
    return SharedPrompts(
        jax.device_put(tokens, sharding(mesh, "batch", "length")), jax.device_put(length, sharding(mesh, None))
    )


def check_batch(mesh: Mesh, config: TrainConfig, name: str) -> None:
    """Raise UserError when the rows of a microbatch do not divide over the mesh."""
    parts, rows = mesh.size("batch"), config.batch // config.accumulate
    if rows % parts:
        raise UserError(
            f"{name}.batch={config.batch} in {config.accumulate} microbatch(es) of {rows} rows does not divide over "
            f"data x fsdp = {parts} devices; set --config.{name}.batch to a multiple of {parts * config.accumulate}, or "
            f"a smaller --config.mesh.data."
        )
