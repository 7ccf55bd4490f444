"""Fine-tuning as most tests of training want it: cross-entropy on packed rows."""

from etils import epath

from lmsi_jax.stages.finetune import work
from lmsi_jax.training import objective, step
from lmsi_jax.training.batches import shuffled
from lmsi_jax.training.loop import Run
from lmsi_jax.training.loop import train as train_any
from lmsi_jax.training.objective import Batch, cross_entropy
from lmsi_jax.training.trainable import trainable


def batch_loss(config, params, rows, prompts=None, remat="none", z_loss=0.0):
    """The loss of rows, as a Mean."""
    return cross_entropy(config, remat, z_loss)(params, Batch(rows, prompts))[0]


def place_batch(mesh, rows):
    """Rows by name onto the mesh."""
    return objective.place_batch(mesh, Batch(rows)).rows


def gradients(config, params, rows, microbatches):
    """(loss, gradient) of rows."""
    loss, _, grads = step.gradients(cross_entropy(config), params, Batch(rows), microbatches)
    return loss, grads


def init_state(mesh, model_config, config, params, seed):
    return step.init_state(mesh, trainable(model_config, config), config, params, seed)


def abstract_state(mesh, model_config, config):
    return step.abstract_state(mesh, trainable(model_config, config), config)


def make_step(model_config, config):
    """A step of (state, rows, frozen parameters, prompts)."""
    of_batch = step.make_step(cross_entropy(model_config, config.remat, config.z_loss), trainable(model_config, config), config)
    return lambda state, rows, frozen, prompts=None: of_batch(state, Batch(rows, prompts), frozen)


def train(mesh, model_config, config, params, rows, *, seed, folder, hooks=(), **run):
    """Train on packed rows under `folder`; its metrics are in `folder`/metrics/train.jsonl."""
    folder = epath.Path(folder)
    about = Run(mesh, seed, folder / "state", folder / "metrics/train.jsonl", work(model_config, config, rows), **run)
    what = cross_entropy(model_config, config.remat, config.z_loss)
    batches = shuffled(mesh, rows, config.batch, seed)
    return train_any(what, batches, trainable(model_config, config), hooks, params, config, about)
