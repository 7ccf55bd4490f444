"""Tokens and a rough time of stages that have not run yet."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.core.machine import matmul_peak
from lmsi_jax.model import transformer
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.tasks.config import OWN
from lmsi_jax.tasks.sources import question_source

DECODING, TRAINING = 0.1, 0.4  # share of the speed of matrix products that small models reach on a CPU


@dataclasses.dataclass(frozen=True)
class Work:
    """Tokens that are sampled and trained on, and the floating-point operations that both take."""

    sampled: float = 0.0
    trained: float = 0.0
    operations: float = 0.0  # of sampling
    training_operations: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Work(*(one + two for one, two in pairs))

    def text(self, rates: "Rates") -> str:
        """Return the tokens and the time, in words."""
        seconds = self.operations / rates.decoding + self.training_operations / rates.training
        time = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
        return f"{self.sampled / 1e6:,.2f}M tokens sampled, {self.trained / 1e6:,.2f}M trained on, about {time}"


@dataclasses.dataclass(frozen=True)
class Rates:
    """Floating-point operations per second in sampling and in training, and where they are from."""

    decoding: float
    training: float
    about: str

    @classmethod
    def measured(cls, finished: Iterable[tuple[Work, float]]) -> "Rates":
        """Return the rates of finished stages, given as (work, seconds), or rough ones of this machine where there are none."""
        decoded, trained = [0.0, 0.0], [0.0, 0.0]
        for work, seconds in finished:
            for total, operations in ((decoded, work.operations), (trained, work.training_operations)):
                if operations:
                    total[0] += operations
                    total[1] += seconds
        if decoded[1] and trained[1]:
            return cls(decoded[0] / decoded[1], trained[0] / trained[1], "Times are those of the finished runs.")
        peak = matmul_peak()
        about = (
            f"Times are rough: no run is finished yet. They assume that this machine samples at {DECODING:.0%} and trains at "
            f"{TRAINING:.0%} of its speed of matrix products."
        )
        return cls(DECODING * peak, TRAINING * peak, about)


def work_of(stage: Stage, config: Any) -> Work:
    """Return the work of a stage of a self-improvement run, as far as it samples or trains.

    A path is assumed to have half of its maximum length.
    """
    sample = getattr(config, "sample", None)
    if sample is None:
        return Work()
    parameters = transformer.count_active_params(checkpoints.load_config(_checkpoint(config)))
    length, source = sample.max_tokens / 2, question_source(config.data)
    sampled = trained = 0.0
    if stage.short_name == "sample":
        own = config.data.source == OWN
        count = config.propose.proposals * config.propose.passes if own else len(source.training(config.seed))
        sampled = count * sample.paths * length
    elif stage.short_name == "propose":
        sampled = config.propose.proposals * config.propose.passes * config.propose.max_tokens / 2
    elif stage.short_name == "evaluate":
        votes = sample.paths if config.evaluate.self_consistency else 0
        each = (votes + 1) * length + config.evaluate.standard_tokens / 2
        sampled = len(source.held_out(config.seed)) * each
    elif stage.short_name == "prompts":  # other prompts and other tasks
        sampled = len(stage.settings.asked) * stage.settings.limit * length
    elif stage.short_name == "finetune":
        trained = float(config.finetune.steps * config.finetune.batch * config.finetune.row_length)
    elif stage.short_name == "rl":
        rl, steps = config.rl, config.train.steps
        paths = rl.questions * rl.paths * length  # tokens of a batch of rollouts
        checks = 1 + steps / rl.check_every if rl.check_every else 0
        sampled = steps / rl.steps_per_batch * paths + checks * 3 * rl.probes * rl.probe_paths * length
        trained = steps / rl.updates * paths
    return Work(sampled, trained, 2 * parameters * sampled, 6 * parameters * trained)


def _checkpoint(config: Any) -> str:
    source = getattr(config, "model", None) or config.teacher
    return str(source.checkpoint)
